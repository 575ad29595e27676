// What the scenarios share: the browser, the way to ask the Rust side for things, and checks.
//
// Standard output and input carry JSON lines: `{"ask":1,"do":"update",…}` out, `{"answer":1,…}`
// in. Whatever is for people goes to standard error.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

export { assert };

const { RIDERFLOW_PAGES_URL: BASE, RIDERFLOW_CHROMIUM: CHROMIUM, RIDERFLOW_SCREENSHOTS: SHOTS } = process.env;
assert.ok(BASE && CHROMIUM && SHOTS, "RIDERFLOW_PAGES_URL, RIDERFLOW_CHROMIUM and RIDERFLOW_SCREENSHOTS are set");
mkdirSync(SHOTS, { recursive: true });

const waiting = new Map();
let asked = 0;
const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const { answer, error, ...rest } = JSON.parse(line);
  const { resolve, reject } = waiting.get(answer);
  waiting.delete(answer);
  if (error) reject(new Error(error));
  else resolve(rest);
});

/** Asks the other side to do something, and gives its answer. */
export function ask(what, parameters = {}) {
  asked += 1;
  const number = asked;
  process.stdout.write(`${JSON.stringify({ ask: number, do: what, ...parameters })}\n`);
  return new Promise((resolve, reject) => waiting.set(number, { resolve, reject }));
}

export function tell(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

export function stopListening() {
  lines.close();
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export const CENTER = { longitude: 77.5946, latitude: 12.9716 };

/** Metres east and north of the centre of the city, in degrees. */
export function at(eastM, northM) {
  return {
    longitude: CENTER.longitude + eastM / (111_194.93 * Math.cos((CENTER.latitude * Math.PI) / 180)),
    latitude: CENTER.latitude + northM / 111_194.93,
  };
}

/**
 * A driver's update. With `ago_s` its fix is that much older than now, so that the next one may
 * be far away without being a teleport.
 */
export const update = (driverId, [east, north], { ago_s = 0, ...more } = {}) =>
  ask("update", { update: { driverId, ...at(east, north), state: "south", accuracy: 5, timestamp: Date.now() - ago_s * 1000, ...more } });

export const order = (orderId, driverId, status, more = {}) =>
  ask("order", {
    id: orderId,
    order: {
      orderId, driverId, status,
      pickup: { ...at(0, 0), place: "restaurant-9" },
      dropoff: { ...at(1500, 0), place: "customer-77" },
      updatedAt: Date.now(), ...more,
    },
  });

export async function link(kind, id) {
  const subject = id === undefined ? kind : `${kind}/${id}`;
  const { token } = await ask("token", { subject });
  const page = { order: "track", place: "place", fleet: "map" }[kind];
  return `${BASE}/${page}${id === undefined ? "" : `/${encodeURIComponent(id)}`}#token=${token}`;
}

const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
  ],
});

export const closeBrowser = () => browser.close();

export const PHONE = { width: 390, height: 844 };
export const DESK = { width: 1280, height: 800 };

/**
 * A page of its own. Whatever it asks of another host, logs as an error or throws fails the
 * scenario at its end; `expected` is a pattern of the
 * complaints that are part of the story.
 */
export async function open(url, { size = PHONE, dark = false, still = false, webgl = true, clockOffMs = 0, expected = null } = {}) {
  const context = await browser.newContext({
    viewport: size, colorScheme: dark ? "dark" : "light", reducedMotion: still ? "reduce" : "no-preference",
    deviceScaleFactor: size.width < 500 ? 2 : 1,
  });
  const faults = [];
  const requests = [];
  if (!webgl) {
    await context.addInitScript(() => {
      const getContext = HTMLCanvasElement.prototype.getContext;
      HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
        return /webgl|webgpu/.test(kind) ? null : getContext.call(this, kind, ...rest);
      };
    });
  }
  if (clockOffMs !== 0) {
    await context.addInitScript((off) => {
      const now = Date.now.bind(Date);
      Date.now = () => now() + off;
    }, clockOffMs);
  }
  context.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    requests.push(request.url());
    if (origin !== BASE && !["data:", "blob:"].includes(protocol)) faults.push(`a request to ${request.url()}`);
    if (request.url().includes("token") && !request.isNavigationRequest()) faults.push(`a token in ${request.url()}`);
  });
  const page = await context.newPage();
  page.on("pageerror", (error) => faults.push(`thrown: ${error.message}`));
  page.on("console", (message) => {
    const text = message.text();
    if (expected?.test(text)) return;
    if (/GPU stall|GL Driver Message/.test(text)) return;
    if (["error", "warning"].includes(message.type())) faults.push(`logged: ${text}`);
  });
  await page.goto(url);
  const root = (name) => page.getAttribute("html", `data-${name}`);
  return {
    page, context, requests, root,
    async state(state, timeout = 8000) {
      await page.waitForSelector(`html[data-state="${state}"]`, { timeout, state: "attached" }).catch(async () => {
        throw new Error(`the page is not ${state} within ${timeout} ms but ${await root("state")}: ${await page.title()}`);
      });
    },
    text: async (selector) => (await page.textContent(selector)).trim(),
    shot: (name) => page.screenshot({ path: `${SHOTS}/${name}.png` }),
    async close() {
      await context.close();
      assert.deepEqual(faults, [], "nothing leaves the host and nothing fails");
    },
  };
}

/** Resolves as soon as the page's customer marker is drawn elsewhere: when, by the wall clock. */
export function markerMoves(page) {
  return page.evaluate(() => new Promise((resolve) => {
    const marker = document.querySelector(".agent");
    const before = marker.style.transform;
    const look = () => (marker.style.transform === before ? requestAnimationFrame(look) : resolve(performance.timeOrigin + performance.now()));
    look();
  }));
}

/** Waits until the marker has not moved for 300 ms. */
export function markerRests(page) {
  return page.evaluate(() => new Promise((resolve) => {
    let last = "";
    let since = performance.now();
    const look = () => {
      const { transform } = document.querySelector(".agent").style;
      if (transform !== last) {
        last = transform;
        since = performance.now();
      }
      if (performance.now() - since > 300) resolve();
      else requestAnimationFrame(look);
    };
    look();
  }));
}

/** Names, roles, language, contrast: what can be held by hand of WCAG AA. */
export async function assertAccessible(page) {
  const faults = await page.evaluate(() => {
    const found = [];
    const html = document.documentElement;
    if (!html.lang) found.push("no language");
    if (document.title.trim() === "") found.push("no title");
    if (document.querySelectorAll("h1").length !== 1) found.push("not one h1");
    if (document.querySelectorAll("main").length !== 1) found.push("not one main");
    if (!document.querySelector('[role="status"][aria-live="polite"]')) found.push("no polite live region");
    const visible = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
    for (const element of document.querySelectorAll("button, a, input, select, summary, [role=tab]")) {
      const label = element.labels?.[0]?.textContent ?? element.getAttribute("aria-label") ?? element.textContent;
      if (visible(element) && !label?.trim()) found.push(`no name: ${element.outerHTML.slice(0, 80)}`);
    }
    const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
    if (new Set(ids).size !== ids.length) found.push("an id is there twice");
    for (const element of document.querySelectorAll("[aria-labelledby], [aria-controls]")) {
      for (const name of ["aria-labelledby", "aria-controls"]) {
        const id = element.getAttribute(name);
        if (id && !document.getElementById(id)) found.push(`${name} names ${id}, which is not there`);
      }
    }
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (color) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const over = (top, under) => top.slice(0, 3).map((c, i) => c * (top[3] / 255) + under[i] * (1 - top[3] / 255)).concat(255);
    const ground = (element) => {
      const layers = [];
      for (let e = element; e; e = e.parentElement) {
        const color = rgba(getComputedStyle(e).backgroundColor);
        if (color[3] > 0) layers.push(color);
        if (color[3] === 255) break;
      }
      return layers.reduceRight((under, top) => over(top, under), [255, 255, 255, 255]);
    };
    const luminance = (color) => {
      const [r, g, b] = color.map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      if (!walker.currentNode.textContent.trim() || !visible(element) || element.closest(".visually-hidden, noscript, .map, .skip")) continue;
      const style = getComputedStyle(element);
      const under = ground(element);
      const [a, b] = [luminance(over(rgba(style.color), under)), luminance(under)].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      const size = Number.parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      if (ratio < (large ? 3 : 4.5)) found.push(`contrast ${ratio.toFixed(2)}: ${element.className} "${walker.currentNode.textContent.trim().slice(0, 30)}"`);
    }
    return found;
  });
  assert.deepEqual(faults, [], "accessible");
}

/** The things that Tab reaches, in order. */
export async function tabStops(page, many = 12) {
  const stops = [];
  for (let i = 0; i < many; i += 1) {
    await page.keyboard.press("Tab");
    stops.push(await page.evaluate(() => {
      const { id, className, tagName } = document.activeElement;
      return id || (typeof className === "string" && className.split(" ")[0]) || tagName.toLowerCase();
    }));
  }
  return stops;
}
