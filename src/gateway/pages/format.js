// Words and numbers for people. Pure; times of day in the reader's own zone.

/** "4–7 min", "1 min", "under a minute"; from seconds. */
export function etaText(eta) {
  if (!eta) return null;
  const least = Math.max(0, Math.floor(eta.min / 60));
  const most = Math.max(1, Math.ceil(eta.max / 60));
  if (most >= 60) {
    return `${hours(Math.floor(eta.min / 60))}–${hours(most)}`;
  }
  if (most === 1) return eta.max <= 30 ? "under a minute" : "1 min";
  return least === most ? `${most} min` : `${Math.max(1, least)}–${most} min`;
}

function hours(minutes) {
  const rest = minutes % 60;
  if (minutes < 60) return `${minutes} min`;
  return rest === 0 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / 60)} h ${rest} min`;
}

/** "at the spot" is not said: "40 m", "850 m", "1.2 km", "14 km". */
export function distanceText(metres) {
  if (typeof metres !== "number") return null;
  if (metres < 1000) return `${Math.max(10, Math.round(metres / 10) * 10)} m`.replace(/^1000 m$/, "1.0 km");
  return metres < 10_000 ? `${(metres / 1000).toFixed(1)} km` : `${Math.round(metres / 1000)} km`;
}

/** "23 s", "4 min", "2 h 5 min", "3 days". */
export function durationText(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 24 * 60) return hours(minutes);
  const days = Math.floor(minutes / (24 * 60));
  return days === 1 ? "1 day" : `${days} days`;
}

/** "just now", "23 s ago". */
export function agoText(ms) {
  return ms < 2000 ? "just now" : `${durationText(ms)} ago`;
}

const clockFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const secondsFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export function clockText(ms) {
  return clockFormat.format(ms);
}

export function clockSecondsText(ms) {
  return secondsFormat.format(ms);
}

/** "12.4 km/h" is too exact for a street: whole km/h. */
export function speedText(mps) {
  return typeof mps === "number" && mps >= 0 ? `${Math.round(mps * 3.6)} km/h` : null;
}

const POINTS = ["north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west"];

export function headingText(degrees) {
  if (typeof degrees !== "number" || degrees < 0) return null;
  return POINTS[Math.round(degrees / 45) % 8];
}

/** A place's id as a name: "restaurant-9" is "Restaurant 9". */
export function placeName(id) {
  const words = String(id).replace(/[-_]+/g, " ").trim();
  return words === "" ? String(id) : words[0].toUpperCase() + words.slice(1);
}

/** "riderflow.agent.near.v1" and "agent.near" are the same. */
export function eventType(type) {
  return String(type).replace(/^riderflow\./, "").replace(/\.v\d+$/, "");
}

const COUNT = new Intl.NumberFormat();

export function countText(n) {
  return COUNT.format(n);
}

/** "1 order", "3 orders". */
export function plural(n, one, many = `${one}s`) {
  return `${countText(n)} ${n === 1 ? one : many}`;
}

/** Server time now, from the `now` of the last message and the page's monotonic clock. */
export class ServerClock {
  #offset = null;

  hear(serverNowMs) {
    if (Number.isFinite(serverNowMs)) this.#offset = serverNowMs - performance.now();
  }

  now() {
    return this.#offset === null ? null : performance.now() + this.#offset;
  }
}

/** The id in a page's address, `/track/o-1`; empty where it can't be read. */
export function pathId() {
  try {
    return decodeURIComponent(location.pathname.split("/")[2] ?? "");
  } catch {
    return "";
  }
}
