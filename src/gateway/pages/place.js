// A restaurant's board: its orders by where their drivers are.

import { ServerClock, clockText, distanceText, durationText, etaText, placeName, pathId, plural } from "./format.js";
import { STALE_MS } from "./motion.js";
import { refusalPage } from "./plain.js";
import { LiveStream, tokenFromFragment } from "./sse.js";

const root = document.documentElement;
const $ = (id) => document.getElementById(id);
const placeId = pathId();

/** The columns, most urgent first. */
const GROUPS = [
  { key: "arrived", title: "Here now", states: ["arrived"], none: "No driver is here." },
  { key: "near", title: "Near", states: ["near"], none: "No driver is near." },
  { key: "coming", title: "On the way", states: ["coming"], none: "No driver is on the way." },
  { key: "waiting", title: "Waiting", states: ["waiting"], none: "Every order has a driver." },
  { key: "gone", title: "Picked up", states: ["picked_up", "departed", "ended"], none: "Nothing was picked up lately." },
];
const GROUP_OF = new Map(GROUPS.flatMap((group) => group.states.map((state) => [state, group.key])));

const WORDS = {
  arrived: "Driver is here",
  near: "Driver is near",
  coming: "Driver is on the way",
  waiting: "No driver yet",
  picked_up: "Picked up",
  departed: "Driver has left",
  ended: "Finished",
};

/** An order that came into a state this short a time ago stands out, ms. */
const FRESH_MS = 20_000;

const clock = new ServerClock();
/** id → {row, heardMs: when its driver's place was received, by the page's own clock}. */
const orders = new Map();
const cards = new Map();
const columns = new Map();
/** Orders whose change of state was seen on this page: id → page time. */
const changed = new Map();
let link = "connecting";
let known = false;

function take(row) {
  const before = orders.get(row.id)?.row;
  orders.set(row.id, { row, heardMs: heardMs(row.agent) });
  if (known && before?.state !== row.state) {
    changed.set(row.id, performance.now());
    say(`Order ${row.id}: ${stateWords(row)}.`);
  }
}

const heardMs = (agent) => (agent ? performance.now() - Math.max(0, agent.age_ms ?? 0) : null);

const HANDLERS = {
  snapshot(message) {
    const ids = new Set(message.orders.map((row) => row.id));
    for (const id of orders.keys()) if (!ids.has(id)) HANDLERS.removed({ id });
    for (const row of message.orders) take(row);
    known = true;
  },
  order(message) {
    take(message.order);
  },
  position({ id, agent, distance_m, eta_s }) {
    const order = orders.get(id);
    if (!order || !agent) return;
    order.row = { ...order.row, agent, distance_m, eta_s };
    order.heardMs = heardMs(agent);
  },
  removed({ id }) {
    if (orders.delete(id)) changed.delete(id);
  },
};

/** What is said of an order; a driver who left with an order nobody marked as picked up shows. */
function stateWords(row) {
  if (row.state === "departed" && row.status === "assigned") return "Driver left, pickup not recorded";
  const unseen = row.state === "waiting" || (row.state === "coming" && !row.agent);
  if (unseen && row.status !== "placed") return "Driver assigned, no position yet";
  if (row.state === "ended" && row.status === "cancelled") return "Cancelled";
  return WORDS[row.state] ?? row.state;
}

let spoken = [];
let speakTimer = 0;

/** Several changes at once are spoken as one message. */
function say(text) {
  spoken.push(text);
  clearTimeout(speakTimer);
  speakTimer = setTimeout(() => {
    $("spoken").textContent = spoken.slice(-5).join(" ");
    spoken = [];
  }, 400);
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function element(name, className, text = "") {
  return Object.assign(document.createElement(name), { className, textContent: text });
}

function column(group) {
  let made = columns.get(group.key);
  if (made) return made;
  const section = element("section", "column");
  section.dataset.group = group.key;
  const title = element("h2", "column-title");
  const count = element("span", "count number", "0");
  title.append(element("span", "", group.title), count);
  title.id = `group-${group.key}`;
  section.setAttribute("aria-labelledby", title.id);
  const none = element("p", "none", group.none);
  const list = element("ol", "cards");
  section.append(title, none, list);
  $("board").append(section);
  made = { section, list, none, count };
  columns.set(group.key, made);
  return made;
}

function card(id) {
  let made = cards.get(id);
  if (made) return made;
  const item = element("li", "order");
  item.tabIndex = -1;
  const top = element("div", "order-top");
  const name = element("h3", "order-id number", id);
  const badge = element("span", "badge", "New");
  top.append(name, badge);
  const eta = element("p", "order-eta number");
  const words = element("p", "order-words");
  const foot = element("p", "order-foot number");
  item.append(top, eta, words, foot);
  made = { item, badge, eta, words, foot };
  cards.set(id, made);
  return made;
}

function fillCard({ row, heardMs: heard }, pageNow, serverNow) {
  const { item, badge, eta, words, foot } = card(row.id);
  const ageMs = heard === null ? null : pageNow - heard;
  const stale = ageMs !== null && ageMs >= STALE_MS;
  const since = serverNow === null ? 0 : Math.max(0, serverNow - row.since);
  const fresh = pageNow - (changed.get(row.id) ?? -Infinity) < FRESH_MS && GROUP_OF.get(row.state) !== "gone";
  Object.assign(item.dataset, { id: row.id, state: row.state, status: row.status, stale: stale ? "yes" : "no", fresh: fresh ? "yes" : "no" });
  badge.hidden = !fresh;
  const time = row.agent && !stale && row.state !== "arrived" ? etaText(row.eta_s) : null;
  const distance = row.agent && row.state !== "arrived" ? distanceText(row.distance_m) : null;
  setText(eta, row.state === "arrived" ? durationText(since) : time ?? distance ?? "");
  eta.hidden = eta.textContent === "";
  setText(words, row.leg === "dropoff" ? `${stateWords(row)} · delivery to here` : stateWords(row));
  const parts = [];
  if (stale) parts.push(`Last seen ${durationText(ageMs)} ago`);
  else if (time && distance) parts.push(`${distance} away`);
  if (row.state === "arrived") parts.push(`arrived ${clockText(row.since)}`);
  else if (GROUP_OF.get(row.state) === "gone") parts.push(clockText(row.since));
  else if (!stale && serverNow !== null) parts.push(`for ${durationText(since)}`);
  setText(foot, parts.join(" · "));
}

/** Within a column: who is closest first; who waits longest first; who went last first. */
function inOrder(group, a, b) {
  if (group.key === "near" || group.key === "coming") {
    return (a.eta_s?.min ?? Infinity) - (b.eta_s?.min ?? Infinity) || (a.distance_m ?? Infinity) - (b.distance_m ?? Infinity) || a.since - b.since;
  }
  return group.key === "gone" ? b.since - a.since : a.since - b.since;
}

function render() {
  if (root.dataset.state === "refused") return;
  root.dataset.link = link;
  $("link").dataset.link = link;
  setText($("link"), { connecting: "Connecting", live: "Live", waiting: "Reconnecting" }[link]);
  setText($("clock"), clockText(clock.now() ?? Date.now()));
  if (!known) return;
  const pageNow = performance.now();
  const serverNow = clock.now();
  $("board").setAttribute("aria-busy", "false");
  for (const group of GROUPS) {
    const { section, list, none, count } = column(group);
    const mine = [...orders.values()].filter(({ row }) => GROUP_OF.get(row.state) === group.key);
    mine.sort((a, b) => inOrder(group, a.row, b.row));
    for (const order of mine) fillCard(order, pageNow, serverNow);
    const items = mine.map(({ row }) => card(row.id).item);
    if (items.length !== list.children.length || items.some((item, i) => list.children[i] !== item)) list.replaceChildren(...items);
    setText(count, String(mine.length));
    none.hidden = mine.length > 0;
    section.dataset.count = mine.length;
  }
  for (const id of cards.keys()) if (!orders.has(id)) cards.delete(id);
  const here = columns.get("arrived").list.children.length;
  const near = columns.get("near").list.children.length;
  const open = [...orders.values()].filter(({ row }) => GROUP_OF.get(row.state) !== "gone").length;
  root.dataset.state = here > 0 ? "here" : orders.size === 0 ? "empty" : "open";
  $("empty").hidden = orders.size > 0;
  $("board").hidden = orders.size === 0;
  setText($("summary"), [plural(open, "open order"), here > 0 ? `${here} here now` : null, near > 0 ? `${near} near` : null].filter(Boolean).join(" · "));
  const title = here > 0 ? `(${here}) Driver here · ${placeName(placeId)}` : `${plural(open, "open order")} · ${placeName(placeId)}`;
  if (document.title !== title) document.title = title;
}

function onState(state, detail) {
  if (state === "refused" || state === "ended") {
    const expired = detail === 401 || state === "ended";
    refusalPage(
      expired ? "This link has expired" : "This link does not work",
      expired ? "Sign in again or ask for a new link to the board." : "Check that it is the newest link to this board.",
    );
    return;
  }
  link = state;
  if (state === "waiting" && !known) setText($("summary"), "Can't reach the server. Trying again.");
  render();
}

/** A board on a wall keeps its screen on where the browser allows it. */
async function keepAwake() {
  try {
    if (document.visibilityState === "visible") await navigator.wakeLock?.request("screen");
  } catch {
    // Refused, as on low battery: the screen goes dark when the device says so.
  }
}

function start() {
  setText($("place"), placeName(placeId) || "Orders");
  const token = tokenFromFragment();
  if (!token || placeId === "") {
    refusalPage("This link is incomplete", "Part of it is missing. Open the whole link that you were given.");
    return;
  }
  new LiveStream({
    url: `/v1/places/${encodeURIComponent(placeId)}/live`,
    token,
    onState,
    onEvent(type, message) {
      clock.hear(message.now);
      HANDLERS[type]?.(message);
      if (type !== "ended") render();
    },
  });
  setInterval(render, 1000);
  document.addEventListener("visibilitychange", keepAwake);
  keepAwake();
}

addEventListener("hashchange", () => location.reload());
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
start();
