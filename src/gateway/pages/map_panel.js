// The operations page's panel: all that the map shows, as lists and words.

import { agoText, clockSecondsText, countText, durationText, eventType, headingText, placeName, plural, speedText } from "./format.js";
import { STATES } from "./fleet.js";

const $ = (id) => document.getElementById(id);
/** Rows that a list shows at most. */
const LONGEST_LIST = 100;
const EVENTS_KEPT = 300;

const TOLD = {
  "geofence.entered": (e, fence) => `entered ${fence}`,
  "geofence.exited": (e, fence) => `left ${fence}`,
  "geofence.crossed": (e, fence) => `crossed ${fence}`,
  "geofence.dwelled": (e, fence) => `stayed in ${fence}`,
  "agent.near": (e) => `near ${e.leg ?? "target"} of ${e.orderId}`,
  "agent.arrived": (e) => `at ${e.leg ?? "target"} of ${e.orderId}`,
  "agent.departed": (e) => `left ${e.leg ?? "target"} of ${e.orderId}`,
  "order.assigned": (e) => `took ${e.orderId}`,
  "order.picked_up": (e) => `picked up ${e.orderId}`,
  "order.delivered": (e) => `delivered ${e.orderId}`,
  "order.cancelled": (e) => `${e.orderId} cancelled`,
  "driver.silent": () => "went silent",
  "driver.resumed": () => "is back",
};

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function element(name, className, text = "") {
  return Object.assign(document.createElement(name), { className, textContent: text });
}

/** The panel. `on` has `select(id, fly)`, `filter()` and `fence(id)`. */
export class Panel {
  #fleet;
  #fences;
  #hidden;
  #on;
  #events = [];
  #tab = "events";
  #driversKey = "";
  #eventsShown = false;

  constructor(fleet, fences, hidden, on) {
    this.#fleet = fleet;
    this.#fences = fences;
    this.#hidden = hidden;
    this.#on = on;
    this.#makeLegend();
    this.#makeTabs();
    $("event-filter").addEventListener("change", () => { this.#eventsShown = false; this.#showEvents(); });
    for (const list of ["events", "drivers", "fences"]) {
      $(list).addEventListener("click", ({ target }) => {
        const button = target.closest("button");
        if (button?.dataset.driver) on.select(Number(button.dataset.driver), true);
        if (button?.dataset.fence) on.fence(button.dataset.fence);
      });
    }
  }

  #makeLegend() {
    $("legend").append(...STATES.map(({ key, title }) => {
      const button = element("button", "state");
      button.type = "button";
      button.dataset.state = key;
      button.setAttribute("aria-pressed", "true");
      const mark = element("span", "mark");
      mark.setAttribute("aria-hidden", "true");
      button.append(mark, element("span", "state-count number", "–"), element("span", "state-title", title));
      button.addEventListener("click", () => {
        const off = !this.#hidden.delete(key);
        if (off) this.#hidden.add(key);
        button.setAttribute("aria-pressed", String(!off));
        this.#driversKey = "";
        this.#on.filter();
      });
      return button;
    }));
  }

  #makeTabs() {
    const tabs = [...document.querySelectorAll('[role="tab"]')];
    const choose = (tab) => {
      for (const other of tabs) {
        const chosen = other === tab;
        other.setAttribute("aria-selected", String(chosen));
        other.tabIndex = chosen ? 0 : -1;
        $(other.getAttribute("aria-controls")).hidden = !chosen;
      }
      this.#tab = tab.id.replace("tab-", "");
      this.#driversKey = "";
      this.show(performance.now(), null);
    };
    tabs.forEach((tab, i) => {
      tab.addEventListener("click", () => choose(tab));
      tab.addEventListener("keydown", ({ key }) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
        const next = key === "Home" ? tabs[0] : key === "End" ? tabs.at(-1) : step && tabs[(i + step + tabs.length) % tabs.length];
        if (!next) return;
        next.focus();
        choose(next);
      });
    });
  }

  /** Takes events, oldest first; those known by id are left out. */
  takeEvents(events) {
    const known = new Set(this.#events.map((event) => event.id));
    const fresh = events.filter((event) => !known.has(event.id));
    if (fresh.length === 0) return [];
    this.#events = [...this.#events, ...fresh].slice(-EVENTS_KEPT);
    this.#eventsShown = false;
    return fresh;
  }

  /** What was last told of a driver, newest first. */
  eventsOf(id) {
    return this.#events.filter((event) => event.driverId === id).slice(-5).reverse();
  }

  text(event) {
    const fence = event.fenceId === undefined ? "" : this.#fences.name(event.fenceId);
    return TOLD[eventType(event.type)]?.(event, fence) ?? eventType(event.type);
  }

  /** Brings counts and the open list up to date. */
  show(nowMs, selected) {
    const counts = this.#fleet.counts(nowMs);
    for (const button of $("legend").children) setText(button.querySelector(".state-count"), countText(counts[button.dataset.state]));
    const here = this.#fleet.drivers.size;
    const total = this.#fleet.total;
    setText($("summary"), total > here ? `${countText(here)} of the ${plural(total, "driver")} in this area are shown`
      : here === 0 ? "No driver is in this area" : `${plural(here, "driver")} in this area`);
    if (this.#tab === "events") this.#showEvents();
    if (this.#tab === "drivers") this.#showDrivers(nowMs, selected);
  }

  #showEvents() {
    if (this.#eventsShown) return;
    this.#eventsShown = true;
    const kind = $("event-filter").value;
    const shown = this.#events.filter((event) => eventType(event.type).startsWith(kind)).slice(-LONGEST_LIST).reverse();
    $("no-events").hidden = shown.length > 0;
    const old = new Map([...$("events").children].map((item) => [item.dataset.id, item]));
    $("events").replaceChildren(...shown.map((event) => old.get(event.id) ?? this.#eventItem(event)));
  }

  #eventItem(event) {
    const item = element("li", "");
    item.dataset.id = event.id;
    const button = element("button", "row");
    button.type = "button";
    button.dataset.driver = event.driverId;
    button.dataset.kind = eventType(event.type).split(".")[0];
    const time = element("time", "row-time number", clockSecondsText(event.at));
    const words = element("span", "row-words");
    words.append(element("strong", "number", String(event.driverId)), ` ${this.text(event)}`);
    button.append(element("span", "row-mark"), words, time);
    item.append(button);
    return item;
  }

  #showDrivers(nowMs, selected) {
    const drivers = [...this.#fleet.drivers.values()].filter((driver) => !this.#hidden.has(driver.state(nowMs)));
    const rank = { order: 0, moving: 1, stopped: 2, stale: 3 };
    drivers.sort((a, b) => rank[a.state(nowMs)] - rank[b.state(nowMs)] || a.id - b.id);
    const shown = drivers.slice(0, LONGEST_LIST);
    $("no-drivers").hidden = shown.length > 0;
    setText($("drivers-note"), drivers.length > shown.length ? `The first ${LONGEST_LIST} of ${countText(drivers.length)}. Find others by number, or zoom in.` : "");
    const key = shown.map((driver) => `${driver.id}${driver.state(nowMs)}`).join(" ") + selected;
    const focused = document.activeElement?.dataset?.driver;
    if (key === this.#driversKey) return;
    this.#driversKey = key;
    $("drivers").replaceChildren(...shown.map((driver) => {
      const state = driver.state(nowMs);
      const item = element("li", "");
      const button = element("button", "row");
      button.type = "button";
      button.dataset.driver = driver.id;
      if (driver.id === selected) button.setAttribute("aria-current", "true");
      const mark = element("span", "mark");
      mark.dataset.state = state;
      const words = element("span", "row-words");
      words.append(element("strong", "number", String(driver.id)));
      button.append(mark, words, element("span", "row-time number", this.driverWords(driver, nowMs)));
      item.append(button);
      return item;
    }));
    if (focused) $("drivers").querySelector(`[data-driver="${focused}"]`)?.focus({ preventScroll: true });
  }

  driverWords(driver, nowMs) {
    const state = driver.state(nowMs);
    if (state === "stale") return "no signal";
    const order = driver.orders > 0 ? plural(driver.orders, "order") : "free";
    return `${driver.mover.moving ? "moving" : "stopped"}, ${order}`;
  }

  showFences() {
    const features = this.#fences.features();
    $("no-fences").hidden = features.length > 0;
    $("fences").replaceChildren(...features.sort((a, b) => a.properties.name.localeCompare(b.properties.name)).map(({ properties }) => {
      const item = element("li", "");
      const button = element("button", "row");
      button.type = "button";
      button.dataset.fence = properties.id;
      const words = element("span", "row-words");
      words.append(element("strong", "", properties.name));
      button.append(element("span", "row-mark"), words, element("span", "row-time", properties.kind ? placeName(properties.kind) : ""));
      item.append(button);
      return item;
    }));
  }

  /** The details of the chosen driver; null closes them. */
  showDriver(id, nowMs) {
    $("driver").hidden = id === null;
    if (id === null) return;
    setText($("driver-title"), `Driver ${id}`);
    const driver = this.#fleet.drivers.get(id);
    const pairs = [];
    if (!driver) {
      pairs.push(["Position", "outside this part of the map"]);
    } else {
      const fix = driver.mover.newest;
      const age = driver.mover.ageMs(nowMs);
      const stale = driver.mover.isStale(nowMs);
      pairs.push(["State", stale ? `No signal, last seen ${durationText(age)} ago` : driver.mover.moving ? "Moving" : "Stopped"]);
      pairs.push(["Open orders", countText(driver.orders)]);
      const speed = speedText(fix.speed);
      const heading = headingText(fix.heading);
      if (speed && !stale) pairs.push(["Speed", [speed, driver.mover.moving && heading ? `to the ${heading}` : ""].filter(Boolean).join(" ")]);
      pairs.push(["Position", `${fix.latitude.toFixed(5)}, ${fix.longitude.toFixed(5)}`]);
      if (!stale) pairs.push(["Updated", agoText(age)]);
    }
    for (const event of this.eventsOf(id).slice(0, 3)) pairs.push([clockSecondsText(event.at), this.text(event)]);
    const key = JSON.stringify(pairs);
    if ($("driver-facts").dataset.key === key) return;
    $("driver-facts").dataset.key = key;
    $("driver-facts").replaceChildren(...pairs.map(([term, text]) => {
      const pair = element("div", "");
      pair.append(element("dt", "number", term), element("dd", "number", text));
      return pair;
    }));
  }
}
