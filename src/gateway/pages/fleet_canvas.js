// Draws the drivers: thousands of them each frame, on a 2D canvas that lies over the map.
//
// Each look (state × heading in 7.5° steps) is drawn once into an atlas and then copied; where
// a driver stands is one multiplication, since the map is never turned or tilted.

import { prefersDark, prefersLessMotion } from "./basemap.js";

const HEADINGS = 48;
const CELL = 26;
/** How large drivers are drawn: by this much at the first zoom, growing to the second. */
const SIZES = { zooms: [11, 15.5], parts: [0.46, 1.15] };
/** Names of fences are drawn from this zoom on. */
const LABEL_ZOOM = 12;
/** A fence smaller than this on the screen, px, is not named: its name would hide its neighbours. */
const LABELLED_PX = 36;
const RIPPLE_MS = 2400;

const COLORS = {
  light: { moving: "#1769d1", order: "#c8500a", stopped: "#5c6a76", stale: "#7d8790", edge: "#ffffff", ring: "#141a1d", text: "#27323a", halo: "#ffffffd0" },
  dark: { moving: "#62a8ff", order: "#ff9d4f", stopped: "#a5b2bb", stale: "#84919a", edge: "#0e1316", ring: "#ffffff", text: "#d4dde2", halo: "#0e1316d0" },
};
const ROWS = { moving: 0, order: 1, stopped: 2, stale: 3, ordered: 4 };

/** Web Mercator, parts of the world's width from the north-west. */
function project(longitude, latitude) {
  const sin = Math.sin((latitude * Math.PI) / 180);
  return [0.5 + longitude / 360, 0.5 - Math.log((1 + sin) / (1 - sin)) / (4 * Math.PI)];
}

export class FleetCanvas {
  #canvas;
  #context;
  #map;
  #fleet;
  #hidden;
  #atlas = null;
  #atlasKey = "";
  #labels = [];
  #ripples = [];
  #frames = 0;
  #framesSinceMs = performance.now();
  #dirty = true;
  selected = null;
  paused = false;

  /** `hidden` is a set of the states not to draw. */
  constructor(canvas, map, fleet, hidden) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    this.#map = map;
    this.#fleet = fleet;
    this.#hidden = hidden;
    // While the map moves, draw right after it did, so that both stand still to each other.
    map.on("render", () => { if (map.isMoving()) this.#draw(performance.now()); });
    map.on("resize", () => { this.#dirty = true; });
    const frame = () => {
      requestAnimationFrame(frame);
      if (!map.isMoving()) this.#draw(performance.now());
    };
    requestAnimationFrame(frame);
  }

  touch() {
    this.#dirty = true;
  }

  setLabels(features) {
    this.#labels = features.map(({ properties, geometry }) => {
      const ring = geometry.type === "MultiPolygon" ? geometry.coordinates[0][0] : geometry.coordinates[0];
      const longitudes = ring.map((p) => p[0]);
      const latitudes = ring.map((p) => p[1]);
      const [west, y] = project(Math.min(...longitudes), Math.max(...latitudes));
      const [east] = project(Math.max(...longitudes), Math.max(...latitudes));
      return { x: (west + east) / 2, y, size: east - west, text: properties.name, width: 0 };
    });
    // Where names would overlap, the larger fence has its own.
    this.#labels.sort((a, b) => b.size - a.size);
    this.#dirty = true;
  }

  /** A ring that spreads from where something has happened. */
  ripple(longitude, latitude) {
    if (prefersLessMotion() || typeof longitude !== "number") return;
    const [x, y] = project(longitude, latitude);
    this.#ripples.push({ x, y, began: performance.now() });
    if (this.#ripples.length > 60) this.#ripples.shift();
  }

  /** The driver drawn nearest to a point of the screen, within 18 px. */
  driverAt(point) {
    const view = this.#view();
    const now = performance.now();
    let best = null;
    let least = 18 ** 2;
    for (const driver of this.#fleet.drivers.values()) {
      if (this.#hidden.has(driver.state(now))) continue;
      const distance = (driver.x * view.scale - view.left - point.x) ** 2 + (driver.y * view.scale - view.top - point.y) ** 2;
      if (distance < least) {
        least = distance;
        best = driver;
      }
    }
    return best;
  }

  #view() {
    const { lng, lat } = this.#map.getCenter();
    const zoom = this.#map.getZoom();
    const [x, y] = project(lng, lat);
    const scale = 512 * 2 ** zoom;
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    return { scale, left: x * scale - width / 2, top: y * scale - height / 2, width, height, zoom };
  }

  #draw(now) {
    const lessMotion = prefersLessMotion();
    const busy = !this.paused && (this.#fleet.drivers.size > 0 || this.#ripples.length > 0) && !lessMotion;
    if (!busy && !this.#dirty && !this.#map.isMoving()) return;
    this.#dirty = false;
    const view = this.#view();
    if (view.width === 0) return;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    const [w, h] = [Math.round(view.width * ratio), Math.round(view.height * ratio)];
    if (this.#canvas.width !== w || this.#canvas.height !== h) Object.assign(this.#canvas, { width: w, height: h });
    const colors = prefersDark() ? COLORS.dark : COLORS.light;
    this.#prepareAtlas(colors, ratio);
    const context = this.#context;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, view.width, view.height);
    this.#drawRipples(view, colors, now);
    this.#drawDrivers(view, colors, now, ratio);
    this.#drawLabels(view, colors);
    this.#frames += 1;
    if (now - this.#framesSinceMs >= 1000) {
      this.#canvas.dataset.fps = Math.round((this.#frames * 1000) / (now - this.#framesSinceMs));
      this.#frames = 0;
      this.#framesSinceMs = now;
    }
  }

  #drawDrivers(view, colors, now, ratio) {
    const context = this.#context;
    const { zooms, parts } = SIZES;
    const grown = Math.min(1, Math.max(0, (view.zoom - zooms[0]) / (zooms[1] - zooms[0])));
    const size = (parts[0] + grown * (parts[1] - parts[0])) * CELL;
    const cell = CELL * ratio;
    let picked = null;
    for (const driver of this.#fleet.drivers.values()) {
      if (!driver.settled && !this.paused) {
        const at = driver.mover.at(now);
        if (!at) continue;
        [driver.x, driver.y] = project(at.longitude, at.latitude);
        driver.heading = at.heading;
        driver.settled = !driver.mover.isGliding();
      }
      const x = driver.x * view.scale - view.left;
      const y = driver.y * view.scale - view.top;
      if (x < -CELL || y < -CELL || x > view.width + CELL || y > view.height + CELL) continue;
      const state = driver.state(now);
      if (driver.id === this.selected) picked = { x, y };
      else if (this.#hidden.has(state)) continue;
      const pointed = driver.mover.moving && driver.heading !== null && state !== "stale";
      const row = state === "order" && !pointed ? ROWS.ordered : state === "moving" && !pointed ? ROWS.stopped : ROWS[state];
      const column = pointed ? Math.round((((driver.heading % 360) + 360) % 360) / (360 / HEADINGS)) % HEADINGS : 0;
      context.drawImage(this.#atlas, column * cell, row * cell, cell, cell, x - size / 2, y - size / 2, size, size);
    }
    if (picked) {
      context.lineWidth = 3;
      context.strokeStyle = colors.edge;
      context.beginPath();
      context.arc(picked.x, picked.y, Math.max(12, size * 0.72), 0, 2 * Math.PI);
      context.stroke();
      context.lineWidth = 2;
      context.strokeStyle = colors.ring;
      context.stroke();
    }
  }

  #drawRipples(view, colors, now) {
    const context = this.#context;
    this.#ripples = this.#ripples.filter((ripple) => now - ripple.began < RIPPLE_MS);
    context.lineWidth = 2;
    context.strokeStyle = colors.ring;
    for (const { x, y, began } of this.#ripples) {
      const part = (now - began) / RIPPLE_MS;
      context.globalAlpha = (1 - part) * 0.7;
      context.beginPath();
      context.arc(x * view.scale - view.left, y * view.scale - view.top, 6 + 26 * part, 0, 2 * Math.PI);
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  #drawLabels(view, colors) {
    if (view.zoom < LABEL_ZOOM) return;
    const context = this.#context;
    context.font = `600 12px ${getComputedStyle(document.body).fontFamily}`;
    context.textAlign = "center";
    context.lineJoin = "round";
    context.lineWidth = 4;
    context.strokeStyle = colors.halo;
    context.fillStyle = colors.text;
    const taken = [];
    for (const label of this.#labels) {
      if (label.size * view.scale < LABELLED_PX) break;
      const { text } = label;
      const left = label.x * view.scale - view.left;
      const top = label.y * view.scale - view.top - 9;
      if (left < -80 || top < -20 || left > view.width + 80 || top > view.height + 20) continue;
      if (label.width === 0) label.width = context.measureText(text).width;
      const half = label.width / 2;
      if (taken.some((box) => Math.abs(box.left - left) < box.half + half + 6 && Math.abs(box.top - top) < 16)) continue;
      taken.push({ left, top, half });
      context.strokeText(text, left, top);
      context.fillText(text, left, top);
    }
  }

  #prepareAtlas(colors, ratio) {
    const key = `${colors.moving} ${ratio}`;
    if (this.#atlasKey === key) return;
    this.#atlasKey = key;
    const atlas = document.createElement("canvas");
    atlas.width = HEADINGS * CELL * ratio;
    atlas.height = Object.keys(ROWS).length * CELL * ratio;
    const context = atlas.getContext("2d");
    context.lineJoin = "round";
    const at = (column, row, paint) => {
      context.setTransform(ratio, 0, 0, ratio, (column + 0.5) * CELL * ratio, (row + 0.5) * CELL * ratio);
      paint();
    };
    for (const state of ["moving", "order"]) {
      for (let i = 0; i < HEADINGS; i += 1) {
        at(i, ROWS[state], () => {
          context.rotate((i / HEADINGS) * 2 * Math.PI);
          arrow(context, colors[state], colors.edge);
        });
      }
    }
    at(0, ROWS.stopped, () => dot(context, 5, colors.stopped, colors.edge));
    at(0, ROWS.ordered, () => dot(context, 6.5, colors.order, colors.edge));
    at(0, ROWS.stale, () => {
      context.strokeStyle = colors.edge;
      context.lineWidth = 4;
      context.beginPath();
      context.arc(0, 0, 5, 0, 2 * Math.PI);
      context.stroke();
      context.strokeStyle = colors.stale;
      context.lineWidth = 2;
      context.stroke();
    });
    this.#atlas = atlas;
  }
}

function arrow(context, fill, edge) {
  context.beginPath();
  context.moveTo(0, -10);
  context.lineTo(6.6, 8);
  context.lineTo(0, 4.6);
  context.lineTo(-6.6, 8);
  context.closePath();
  context.lineWidth = 3;
  context.strokeStyle = edge;
  context.stroke();
  context.fillStyle = fill;
  context.fill();
}

function dot(context, radius, fill, edge) {
  context.beginPath();
  context.arc(0, 0, radius, 0, 2 * Math.PI);
  context.lineWidth = 3;
  context.strokeStyle = edge;
  context.stroke();
  context.fillStyle = fill;
  context.fill();
}
