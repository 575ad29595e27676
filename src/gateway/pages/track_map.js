// The customer's map: where the driver, the pickup and the drop-off are, and the camera.

import { onScheme, openMap, prefersLessMotion } from "./basemap.js";
import { distanceM } from "./motion.js";

/** Fixes that the trail behind the marker keeps. */
const TRAIL = 80;
/** The trail's colour, light and dark. */
const TRAIL_COLOR = { light: "#0a7d5a", dark: "#56d3a5" };

const ICONS = {
  pickup: '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M6 8h12l1 12H5L6 8z M9 10V7a3 3 0 0 1 6 0v3" fill="none" stroke="currentColor" stroke-width="2" stroke-linejoin="round" stroke-linecap="round"/></svg>',
  dropoff: '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M4 11.5 12 5l8 6.5M6.5 10v9h11v-9" fill="none" stroke="currentColor" stroke-width="2" stroke-linejoin="round" stroke-linecap="round"/></svg>',
};
const AGENT = '<svg viewBox="0 0 48 48" aria-hidden="true"><circle class="halo" cx="24" cy="24" r="21"/><g class="turn"><path class="nose" d="M24 1.5 33 14H15z"/></g><circle class="body" cx="24" cy="24" r="14"/><g class="turn"><path class="arrow" d="M24 15.5 30.5 31 24 27.6 17.5 31z"/></g></svg>';

export class TrackMap {
  #map;
  #maplibre;
  #mover;
  #recenter;
  #agent = null;
  #turning = [];
  #stops = {};
  #trail = [];
  #order = null;
  #shown = { stale: false, target: null };
  #following = true;
  #drawn = null;

  /** The map, or null without WebGL. `mover` gives the marker's motion of the moment. */
  static async open(container, recenter, mover) {
    const opened = await openMap(container);
    return opened && new TrackMap(opened, recenter, mover);
  }

  constructor({ map, maplibre }, recenter, mover) {
    this.#map = map;
    this.#maplibre = maplibre;
    this.#mover = mover;
    this.#recenter = recenter;
    map.addSource("trail", { type: "geojson", lineMetrics: true, data: lineOf([]) });
    map.addLayer({
      id: "trail", type: "line", source: "trail",
      layout: { "line-cap": "round", "line-join": "round" },
      paint: { "line-width": 5, "line-color": TRAIL_COLOR.light },
    });
    onScheme((dark) => {
      const color = dark ? TRAIL_COLOR.dark : TRAIL_COLOR.light;
      map.setPaintProperty("trail", "line-gradient", [
        "interpolate", ["linear"], ["line-progress"], 0, `${color}00`, 1, `${color}b0`,
      ]);
    });
    // A hand on the map keeps the camera still until "Recentre".
    for (const kind of ["dragstart", "wheel", "dblclick", "touchstart"]) {
      map.on(kind, () => this.#letGo());
    }
    map.getCanvas().addEventListener("keydown", (event) => {
      if (/^(Arrow|[-+=])/.test(event.key)) this.#letGo();
    });
    recenter.addEventListener("click", () => this.frame(false));
    addEventListener("resize", () => { if (this.#following) this.frame(true); });
    requestAnimationFrame(() => this.#tick());
  }

  #letGo() {
    this.#following = false;
    this.#recenter.hidden = false;
  }

  /** Begins anew for an order as told by a snapshot. */
  reset(order) {
    this.#order = order;
    this.#removeAgent();
    for (const kind of ["pickup", "dropoff"]) {
      this.#stops[kind]?.remove();
      const at = order?.[kind];
      if (!at) continue;
      const element = document.createElement("div");
      element.className = `stop stop-${kind}`;
      element.innerHTML = `<span class="pin">${ICONS[kind]}</span>`;
      element.append(Object.assign(document.createElement("span"), {
        className: "stop-name", textContent: kind === "pickup" ? "Pickup" : "You",
      }));
      this.#stops[kind] = new this.#maplibre.Marker({ element, anchor: "bottom" })
        .setLngLat([at.longitude, at.latitude]).addTo(this.#map);
      element.setAttribute("aria-hidden", "true");
      element.removeAttribute("tabindex");
    }
  }

  tookFix(fix, jump) {
    if (!this.#agent) {
      const element = document.createElement("div");
      element.className = "agent";
      element.innerHTML = AGENT;
      this.#turning = element.querySelectorAll(".turn");
      this.#agent = new this.#maplibre.Marker({ element, subpixelPositioning: true })
        .setLngLat([fix.longitude, fix.latitude]).addTo(this.#map);
      element.setAttribute("aria-hidden", "true");
      element.removeAttribute("tabindex");
    }
    if (jump) this.#trail = [];
    const last = this.#trail.at(-1);
    // The trail ends at the fix before the newest: it never runs ahead of the marker.
    this.#map.getSource("trail").setData(lineOf(this.#trail));
    const here = [fix.longitude, fix.latitude];
    if (!last || distanceM(positionOf(last), fix) > 3) this.#trail.push(here);
    if (this.#trail.length > TRAIL) this.#trail.shift();
  }

  show({ stale, target, state }) {
    const element = this.#agent?.getElement();
    if (element) element.dataset.state = state;
    if (target !== this.#shown.target) {
      this.#shown.target = target;
      if (this.#following) this.frame(false);
    }
    this.#shown.stale = stale;
  }

  end() {
    this.#removeAgent();
    this.#recenter.hidden = true;
    if (this.#order) this.frame(false);
  }

  #removeAgent() {
    this.#agent?.remove();
    this.#agent = null;
    this.#drawn = null;
    this.#turning = [];
    this.#trail = [];
    this.#map.getSource("trail").setData(lineOf([]));
  }

  /** Where the card does not cover the map. */
  #padding() {
    const card = document.getElementById("card").getBoundingClientRect();
    const wide = card.height > innerHeight * 0.75 || card.left + card.width < innerWidth * 0.75;
    return wide
      ? { left: Math.min(card.right + 70, innerWidth * 0.6), right: 70, top: 90, bottom: 70 }
      : { left: 56, right: 56, top: 84, bottom: Math.min(innerHeight - card.top + 36, innerHeight * 0.72) };
  }

  /** Brings the driver and where they go to (else both stops) into the picture. */
  frame(jump) {
    this.#following = true;
    this.#recenter.hidden = true;
    const points = [];
    const at = this.#mover().at(performance.now());
    if (at) points.push([at.longitude, at.latitude]);
    const kinds = at && this.#shown.target ? [this.#shown.target] : ["pickup", "dropoff"];
    for (const kind of kinds) {
      const stop = this.#order?.[kind];
      if (stop) points.push([stop.longitude, stop.latitude]);
    }
    if (points.length === 0) return;
    const box = points.reduce((bounds, point) => bounds.extend(point), new this.#maplibre.LngLatBounds(points[0], points[0]));
    this.#map.fitBounds(box, {
      padding: this.#padding(), maxZoom: 16, linear: true,
      duration: jump || prefersLessMotion() ? 0 : 700,
    });
  }

  /** Follows: when the driver comes near the edge of what is free to see, frames anew. */
  #follow(at) {
    if (!this.#following || this.#map.isMoving()) return;
    const { x, y } = this.#map.project([at.longitude, at.latitude]);
    const { left, right, top, bottom } = this.#padding();
    const out = x < left - 40 || x > innerWidth - right + 40 || y < top - 40 || y > innerHeight - bottom + 30;
    const stop = this.#order?.[this.#shown.target];
    const close = stop && this.#map.getZoom() < 15.2
      && distanceM(at, stop) / metresPerPixel(this.#map) < Math.min(innerWidth, innerHeight) * 0.16;
    if (out || close) this.frame(false);
  }

  #tick() {
    requestAnimationFrame(() => this.#tick());
    const at = this.#agent && this.#mover().at(performance.now());
    if (!at || sameSpot(at, this.#drawn)) return;
    this.#drawn = at;
    this.#agent.setLngLat([at.longitude, at.latitude]);
    // An arrow that points nowhere in particular would be made up: it is left out.
    const turn = at.heading === null ? "" : `rotate(${at.heading} 24 24)`;
    for (const part of this.#turning) {
      part.setAttribute("transform", turn);
      part.classList.toggle("unknown", at.heading === null);
    }
    this.#follow(at);
  }
}

const sameSpot = (a, b) => b !== null && a.longitude === b.longitude && a.latitude === b.latitude && a.heading === b.heading;

const positionOf = ([longitude, latitude]) => ({ longitude, latitude });

function lineOf(coordinates) {
  return { type: "FeatureCollection", features: coordinates.length < 2 ? [] : [{ type: "Feature", properties: {}, geometry: { type: "LineString", coordinates } }] };
}

function metresPerPixel(map) {
  return (40_075_016.7 * Math.cos((map.getCenter().lat * Math.PI) / 180)) / (512 * 2 ** map.getZoom());
}
