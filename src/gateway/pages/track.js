// The customer's page: one order, live. Wires the stream to the words, the marker and the map.

import { prefersLessMotion } from "./basemap.js";
import { agoText, clockText, eventType, pathId } from "./format.js";
import { Mover } from "./motion.js";
import { refusalPage } from "./plain.js";
import { LiveStream, tokenFromFragment } from "./sse.js";
import { STEPS, band, describe, eventText, pickupName } from "./track_state.js";
import { TrackMap } from "./track_map.js";

const root = document.documentElement;
const $ = (id) => document.getElementById(id);
const orderId = pathId();

let view = null;
let mover = new Mover();
let map = null;
let spoken = "";

const LINK_WORDS = { connecting: "Connecting", live: "Live", waiting: "Reconnecting", stale: "No signal", ended: "Ended" };

/** Takes position, target and what belongs to them from a message. */
function takePosition(message, jump) {
  view.agent = message.agent;
  view.target = message.target ?? null;
  view.distance_m = message.distance_m;
  view.eta_s = message.eta_s;
  if (!message.agent) {
    mover = new Mover();
  } else if (mover.take(message.agent, performance.now(), jump || prefersLessMotion())) {
    root.dataset.fixAt = message.agent.at;
    map?.tookFix(message.agent, jump);
  }
}

const HANDLERS = {
  snapshot(message) {
    const events = mergedEvents(view?.events ?? [], message.events ?? []);
    view = { order: message.order, events, ended: null };
    // Whoever drives now, the way from the place shown before is not theirs to glide along.
    mover = new Mover();
    map?.reset(message.order);
    takePosition(message, true);
    map?.frame(true);
  },
  position(message) {
    if (view && message.agent) takePosition(message, false);
  },
  event({ event }) {
    if (view) view.events = mergedEvents(view.events, [event]);
  },
  ended(message) {
    end(message.status);
  },
};

/** A resumed stream tells only what is new: events are kept by id, in the order told. */
function mergedEvents(old, fresh) {
  const byId = new Map([...old, ...fresh].map((event) => [event.id, event]));
  return [...byId.values()].sort((a, b) => a.at - b.at);
}

function end(status) {
  view ??= { order: null, events: [] };
  Object.assign(view, { ended: status, agent: null, target: null, distance_m: undefined, eta_s: undefined });
  mover = new Mover();
  map?.end();
}

/** The plain page for a link that opens nothing. */
function refuse(title, detail) {
  map?.end();
  refusalPage(title, detail);
}

function say(text) {
  if (text === spoken) return;
  spoken = text;
  $("spoken").textContent = text;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function renderSteps(step) {
  const list = $("steps");
  if (list.dataset.step === String(step)) return;
  list.dataset.step = step;
  list.replaceChildren(...STEPS.map((name, i) => {
    const item = document.createElement("li");
    item.dataset.step = i < step || step === STEPS.length ? "done" : i === step ? "now" : "next";
    const hint = { done: "done: ", now: "now: ", next: "to come: " }[item.dataset.step];
    item.append(Object.assign(document.createElement("span"), { className: "visually-hidden", textContent: hint }), name);
    if (item.dataset.step === "now") item.setAttribute("aria-current", "step");
    return item;
  }));
}

function renderBand(shown) {
  $("band").hidden = shown === null;
  if (shown === null) return;
  setText($("band-label"), shown.label);
  setText($("band-main"), shown.main);
  setText($("band-side"), shown.side);
}

function renderTimeline() {
  const told = view.events.map((event) => [event, eventText(event, view.order)]).filter(([, text]) => text !== null);
  const list = $("timeline");
  $("events").hidden = told.length === 0;
  const key = told.map(([event]) => event.id).join(" ");
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...told.reverse().map(([event, text]) => {
    const item = document.createElement("li");
    item.dataset.type = eventType(event.type);
    const time = Object.assign(document.createElement("time"), { textContent: clockText(event.at), className: "number" });
    time.dateTime = new Date(event.at).toISOString();
    item.append(time, Object.assign(document.createElement("span"), { textContent: text }));
    return item;
  }));
}

let link = "connecting";

function render() {
  if (root.dataset.state === "refused") return;
  root.dataset.link = link;
  if (!view) return;
  const now = performance.now();
  const stale = mover.isStale(now);
  const ageMs = mover.ageMs(now);
  const told = describe(view, { moving: mover.moving, stale, ageMs });
  Object.assign(root.dataset, { state: told.state, target: view.target ?? "", order: view.order?.status ?? "", ended: view.ended ?? "" });
  $("card").setAttribute("aria-busy", "false");
  setText($("title"), told.title);
  setText($("detail"), told.detail);
  setText($("order"), view.order?.pickup?.place ? `${orderId} · ${pickupName(view.order)}` : orderId);
  renderBand(band(view, told));
  renderSteps(told.step);
  $("steps").hidden = ["cancelled", "removed", "expired"].includes(view.ended);
  renderTimeline();
  const seen = mover.newest && !view.ended && !stale ? `Position updated ${agoText(ageMs)}` : null;
  $("seen").hidden = seen === null;
  if (seen !== null) setText($("seen"), seen);
  const shownLink = view.ended ? "ended" : link === "live" && stale ? "stale" : link;
  $("link").dataset.link = shownLink;
  setText($("link"), LINK_WORDS[shownLink]);
  const title = view.ended || told.state === "waiting" || !told.eta ? told.title : `${told.eta} · ${told.title}`;
  const fullTitle = told.state === "stale" ? `No signal · ${told.title}` : title;
  if (document.title !== fullTitle) document.title = fullTitle;
  // The age counts up each second and the ETA changes: neither is spoken, only what changes state.
  say(`${told.title}. ${told.detail}`);
  map?.show({ stale, target: view.target, state: told.state });
}

function onState(state, detail) {
  if (state === "refused") {
    if (view && !view.ended && detail === 404) end("removed");
    else if (view && !view.ended) end("expired");
    else if (detail === 401) return refuse("This link has expired", "Open the newest link that you were sent, or ask for a new one.");
    else return refuse("This link does not work", "The order may be finished already, or the link is incomplete. Open the link that you were sent once more.");
  } else {
    link = state;
  }
  render();
  if (state === "waiting" && !view) {
    setText($("title"), "Can't reach the server");
    setText($("detail"), "Trying again in a moment. Check your connection.");
    setText($("link"), LINK_WORDS.waiting);
    $("link").dataset.link = "waiting";
    root.dataset.state = "reconnecting";
    say("Can't reach the server. Trying again.");
  }
}

function start() {
  setText($("order"), orderId);
  const token = tokenFromFragment();
  if (!token || orderId === "") {
    return refuse("This link is incomplete", "Part of it is missing. Open the link that you were sent once more, without shortening it.");
  }
  new LiveStream({
    url: `/v1/orders/${encodeURIComponent(orderId)}/live`,
    token,
    onState,
    onEvent(type, message) {
      HANDLERS[type]?.(message);
      render();
    },
  });
  setInterval(render, 500);
  $("events").open = matchMedia("(min-width: 760px)").matches;
  TrackMap.open($("map"), $("recenter"), () => mover).then((opened) => {
    if (root.dataset.state === "refused") return;
    root.dataset.webgl = opened ? "yes" : "no";
    if (!opened) {
      $("no-map").hidden = false;
      return;
    }
    map = opened;
    if (view) {
      map.reset(view.order);
      if (view.ended) map.end();
      else if (mover.newest) map.tookFix(mover.newest, true);
      map.frame(true);
      render();
    }
  });
}

addEventListener("hashchange", () => location.reload());
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
start();
