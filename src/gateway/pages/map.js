// The operations page: all drivers, fences and events, live. Wires the stream to map and panel.

import { boundsOf, onScheme, openMap, prefersLessMotion } from "./basemap.js";
import { ServerClock, clockSecondsText, plural } from "./format.js";
import { FleetCanvas } from "./fleet_canvas.js";
import { Fences, Fleet } from "./fleet.js";
import { Panel, setText } from "./map_panel.js";
import { refusalPage } from "./plain.js";
import { LiveStream, tokenFromFragment } from "./sse.js";

const root = document.documentElement;
const $ = (id) => document.getElementById(id);
const WORLD = [-180, -90, 180, 90];
/** The map rests for so long before another part is asked for, ms. */
const SETTLE_MS = 350;
/** What is asked for reaches beyond what is seen, by this part of it on each side. */
const MARGIN = 0.35;

const fleet = new Fleet();
const fences = new Fences();
const hidden = new Set();
const clock = new ServerClock();
const token = tokenFromFragment();
let map = null;
let canvas = null;
let stream = null;
let box = null;
let link = "connecting";
let known = false;
let paused = false;
let selected = null;
let fitNext = true;
let fitted = false;
let following = false;
let spoken = "";

const panel = new Panel(fleet, fences, hidden, {
  select,
  filter: () => canvas?.touch(),
  fence(id) {
    const feature = fences.features().find(({ properties }) => properties.id === id);
    const bounds = feature && boundsOf([feature]);
    if (bounds) map?.fitBounds(bounds, { padding: 80, maxZoom: 16, duration: prefersLessMotion() ? 0 : 600 });
  },
});

function say(text) {
  if (text === spoken) return;
  spoken = text;
  $("spoken").textContent = text;
}

const HANDLERS = {
  snapshot(message) {
    fleet.replace(message, performance.now(), prefersLessMotion());
    fences.replace(message.fences);
    panel.takeEvents(message.events ?? []);
    drawFences();
    known = true;
    $("panel").setAttribute("aria-busy", "false");
    if (fitNext) {
      fitNext = false;
      fit();
    }
  },
  positions(message) {
    fleet.update(message, performance.now(), prefersLessMotion());
  },
  event({ event }) {
    if (panel.takeEvents([event]).length > 0) canvas?.ripple(event.longitude, event.latitude);
  },
  fence({ id, feature }) {
    fences.set(id, feature);
    drawFences();
  },
};

/** Opens the stream for a part of the world in place of the one before. */
function subscribe(part) {
  box = part;
  // At once: what it told would be passed over, and a browser has few connections to a host.
  stream?.close();
  const mine = new LiveStream({
    url: `/v1/fleet/live?bbox=${part.map((degrees) => degrees.toFixed(5)).join(",")}`,
    token,
    onEvent(type, message) {
      if (stream !== mine) return;
      clock.hear(message.now);
      HANDLERS[type]?.(message);
      canvas?.touch();
      if (type === "snapshot" || type === "event") render();
    },
    onState(state, detail) {
      if (stream !== mine) return;
      onState(state, detail);
    },
  });
  stream = mine;
}

function onState(state, detail) {
  if (state === "refused" || state === "ended") {
    const expired = detail === 401 || state === "ended";
    stream?.close();
    refusalPage(
      expired ? "This link has expired" : "This link does not work",
      expired ? "Sign in again or ask for a new link to the map." : "Check that it is the newest link to the map.",
    );
    return;
  }
  link = state;
  render();
}

/** Asks for another part when the view has left the one asked for, or shows far less of it. */
function follow() {
  if (!map || paused || !known) return;
  const bounds = map.getBounds();
  const [west, south, east, north] = [bounds.getWest(), bounds.getSouth(), bounds.getEast(), bounds.getNorth()];
  const within = box && west >= box[0] && south >= box[1] && east <= box[2] && north <= box[3];
  const far = box && box[2] - box[0] > (east - west) * (1 + 2 * MARGIN) * 2.5;
  if (within && !far) return;
  const [dx, dy] = [(east - west) * MARGIN, (north - south) * MARGIN];
  subscribe([Math.max(-180, west - dx), Math.max(-90, south - dy), Math.min(180, east + dx), Math.min(90, north + dy)]);
}

/** Asks for all drivers anywhere, and brings them into view when they are told. */
function showAll() {
  if (paused) return fit();
  fitNext = true;
  subscribe(WORLD);
}

/** Brings most of the known drivers (all but the outermost) into view. */
function fit() {
  const jump = !fitted;
  if (!map) return;
  const drivers = [...fleet.drivers.values()].map(({ mover }) => mover.newest);
  if (drivers.length === 0) return;
  fitted = true;
  const range = (values) => {
    values.sort((a, b) => a - b);
    return [values[Math.floor(values.length * 0.01)], values[Math.ceil(values.length * 0.99) - 1]];
  };
  const [west, east] = range(drivers.map((fix) => fix.longitude));
  const [south, north] = range(drivers.map((fix) => fix.latitude));
  map.fitBounds([west, south, east, north], { padding: 48, maxZoom: 15, duration: jump || prefersLessMotion() ? 0 : 600 });
}

function drawFences() {
  panel.showFences();
  const features = fences.features();
  canvas?.setLabels(features);
  map?.getSource("fences")?.setData({ type: "FeatureCollection", features });
}

function select(id, fly) {
  selected = id;
  root.dataset.selected = id ?? "";
  if (canvas) canvas.selected = id;
  canvas?.touch();
  const driver = id === null ? null : fleet.drivers.get(id);
  if (driver && fly && map) {
    const { longitude, latitude } = driver.mover.newest;
    map.easeTo({ center: [longitude, latitude], zoom: Math.max(map.getZoom(), 14.5), duration: prefersLessMotion() ? 0 : 700 });
  }
  $("search-note").hidden = true;
  panel.showDriver(id, performance.now());
  render();
}

function search(event) {
  event.preventDefault();
  const text = $("query").value.trim();
  if (text === "") return select(null, false);
  const id = Number(text);
  if (Number.isInteger(id) && fleet.drivers.has(id)) return select(id, true);
  const begins = [...fleet.drivers.keys()].filter((key) => String(key).startsWith(text)).sort((a, b) => a - b);
  if (begins.length === 1) return select(begins[0], true);
  $("search-note").hidden = false;
  setText($("search-note"), begins.length > 1
    ? `${plural(begins.length, "driver")} begin with ${text}: ${begins.slice(0, 5).join(", ")}${begins.length > 5 ? ", …" : "."}`
    : `Driver ${text} is not in this part of the map. "Show all" looks everywhere.`);
}

function setPaused(now) {
  paused = now;
  if (canvas) canvas.paused = now;
  $("pause").setAttribute("aria-pressed", String(now));
  setText($("pause"), now ? "Resume" : "Pause");
  $("paused").hidden = !now;
  if (now) {
    setText($("paused"), `Paused at ${clockSecondsText(clock.now() ?? Date.now())}: nothing here is live`);
    stream?.close();
    stream = null;
  } else {
    subscribe(box ?? WORLD);
    follow();
  }
  render();
}

function render() {
  if (root.dataset.state === "refused") return;
  const shownLink = paused ? "paused" : link;
  root.dataset.link = shownLink;
  $("link").dataset.link = shownLink;
  setText($("link"), { connecting: "Connecting", live: "Live", waiting: "Reconnecting", paused: "Paused" }[shownLink]);
  root.dataset.state = paused ? "paused" : known ? "live" : link === "waiting" ? "reconnecting" : "connecting";
  if (known) {
    root.dataset.drivers = fleet.drivers.size;
    if (!paused) {
      panel.show(performance.now(), selected);
      panel.showDriver(selected, performance.now());
    }
  } else if (link === "waiting") {
    setText($("summary"), "Can't reach the server. Trying again.");
  }
  const title = { live: `${plural(Math.max(fleet.total, fleet.drivers.size), "driver")} · Fleet`, paused: "Paused · Fleet", reconnecting: "Reconnecting · Fleet" }[root.dataset.state];
  if (title && document.title !== title) document.title = title;
  say({ live: link === "live" ? "The map is live." : "Reconnecting.", paused: "Paused.", reconnecting: "Can't reach the server. Trying again." }[root.dataset.state] ?? "");
}

/** Without WebGL the panel is the page. */
async function startMap() {
  const opened = await openMap($("map"));
  if (root.dataset.state === "refused") return opened?.map.remove();
  root.dataset.webgl = opened ? "yes" : "no";
  if (!opened) {
    $("no-map").hidden = false;
    return;
  }
  map = opened.map;
  map.addControl(new opened.maplibre.NavigationControl({ showCompass: false }), "bottom-right");
  map.addSource("fences", { type: "geojson", data: { type: "FeatureCollection", features: [] } });
  map.addLayer({ id: "fences", type: "fill", source: "fences", paint: {} });
  map.addLayer({ id: "fences-edge", type: "line", source: "fences", paint: { "line-width": 1.5, "line-dasharray": [3, 2] } });
  onScheme((dark) => {
    const color = dark ? "#b79cff" : "#6a3fc4";
    map.setPaintProperty("fences", "fill-color", color);
    map.setPaintProperty("fences", "fill-opacity", dark ? 0.16 : 0.11);
    map.setPaintProperty("fences-edge", "line-color", color);
    canvas?.touch();
  });
  canvas = new FleetCanvas($("vehicles"), map, fleet, hidden);
  canvas.paused = paused;
  canvas.selected = selected;
  drawFences();
  if (known) fit();
  let timer = 0;
  map.on("move", () => { clearTimeout(timer); timer = setTimeout(follow, SETTLE_MS); });
  map.on("click", ({ point }) => select(canvas.driverAt(point)?.id ?? null, false));
  map.on("mousemove", ({ point }) => {
    const over = !map.isMoving() && canvas.driverAt(point) !== null;
    if (over !== following) map.getCanvas().style.cursor = (following = over) ? "pointer" : "";
  });
}

function start() {
  if (!token) {
    refusalPage("This link is incomplete", "Part of it is missing. Open the whole link that you were given.");
    return;
  }
  subscribe(WORLD);
  setInterval(render, 1000);
  $("search").addEventListener("submit", search);
  $("query").addEventListener("input", () => { $("search-note").hidden = true; });
  $("driver-close").addEventListener("click", () => { select(null, false); $("query").focus(); });
  $("pause").addEventListener("click", () => setPaused(!paused));
  $("fit").addEventListener("click", showAll);
  addEventListener("keydown", (event) => { if (event.key === "Escape" && selected !== null) select(null, false); });
  startMap();
}

addEventListener("hashchange", () => location.reload());
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
start();
