// The drivers of the operations map: what the stream has told of each. No DOM.

import { Mover } from "./motion.js";

export const STATES = [
  { key: "order", title: "With order" },
  { key: "moving", title: "Moving" },
  { key: "stopped", title: "Stopped" },
  { key: "stale", title: "No signal" },
];

/** From this speed on a driver whose phone tells its speed is drawn as moving; see motion.js. */
export class Driver {
  constructor(id) {
    this.id = id;
    this.mover = new Mover();
    this.orders = 0;
    // Where it is drawn, in parts of the world's width from the north-west: set by the canvas.
    this.x = 0;
    this.y = 0;
    this.heading = null;
    this.settled = false;
  }

  state(nowMs) {
    if (this.mover.isStale(nowMs)) return "stale";
    if (this.orders > 0) return "order";
    return this.mover.moving ? "moving" : "stopped";
  }
}

export class Fleet {
  drivers = new Map();
  total = 0;
  shown = 0;

  /** All that there is to see now. Drivers who were known keep gliding. */
  replace(message, nowMs, jump) {
    const ids = new Set(message.drivers.map((row) => row[0]));
    for (const id of this.drivers.keys()) if (!ids.has(id)) this.drivers.delete(id);
    this.update(message, nowMs, jump);
  }

  update(message, nowMs, jump) {
    this.total = message.total ?? this.total;
    this.shown = message.shown ?? this.shown;
    for (const id of message.gone ?? []) this.drivers.delete(id);
    for (const [id, longitude, latitude, heading, speed, at, ageMs, orders] of message.drivers) {
      let driver = this.drivers.get(id);
      if (!driver) this.drivers.set(id, (driver = new Driver(id)));
      driver.orders = orders ?? 0;
      if (driver.mover.take({ longitude, latitude, heading, speed, at, age_ms: ageMs }, nowMs, jump)) driver.settled = false;
    }
  }

  /** How many are in each state. */
  counts(nowMs) {
    const counts = { order: 0, moving: 0, stopped: 0, stale: 0 };
    for (const driver of this.drivers.values()) counts[driver.state(nowMs)] += 1;
    return counts;
  }
}

/** A circle as a polygon, for a fence that is a point with a radius in metres. */
function circle([longitude, latitude], radiusM) {
  const dLat = radiusM / 111_194.93;
  const dLng = dLat / Math.max(0.01, Math.cos((latitude * Math.PI) / 180));
  const ring = Array.from({ length: 65 }, (_, i) => {
    const angle = (i / 64) * 2 * Math.PI;
    return [longitude + dLng * Math.cos(angle), latitude + dLat * Math.sin(angle)];
  });
  ring[64] = ring[0];
  return { type: "Polygon", coordinates: [ring] };
}

/** The fences, as GeoJSON that can be drawn and as a list. */
export class Fences {
  byId = new Map();

  replace(features) {
    this.byId = new Map((features ?? []).map((feature) => [String(feature.id), feature]));
  }

  set(id, feature) {
    if (feature) this.byId.set(String(id), feature);
    else this.byId.delete(String(id));
  }

  name(id) {
    return this.byId.get(String(id))?.properties?.name ?? String(id);
  }

  features() {
    return [...this.byId].map(([id, feature]) => ({
      type: "Feature",
      properties: { id, name: this.name(id), kind: feature.properties?.kind ?? "" },
      geometry: feature.geometry?.type === "Point"
        ? circle(feature.geometry.coordinates, feature.properties?.radius ?? 50)
        : feature.geometry,
    }));
  }
}
