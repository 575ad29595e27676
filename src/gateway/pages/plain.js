// The page of last resort: a link that opens nothing, said plainly.

const BROKEN_LINK = '<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" aria-hidden="true"><path d="M9.5 14.5l5-5M11 6.5l1.3-1.3a4.2 4.2 0 0 1 6 6L17 12.5M13 17.5l-1.3 1.3a4.2 4.2 0 0 1-6-6L7 11.5M4 4l16 16"/></svg>';

/** Replaces all of the page by a title and a sentence, and says them. */
export function refusalPage(title, detail) {
  document.documentElement.dataset.state = "refused";
  document.title = title;
  const plain = document.createElement("main");
  plain.className = "plain";
  plain.innerHTML = BROKEN_LINK;
  plain.append(
    Object.assign(document.createElement("h1"), { textContent: title }),
    Object.assign(document.createElement("p"), { textContent: detail }),
  );
  const spoken = document.getElementById("spoken");
  document.body.replaceChildren(plain, spoken);
  spoken.textContent = `${title}. ${detail}`;
}
