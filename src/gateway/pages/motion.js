// How a marker gets from fix to fix: pure arithmetic, no clock and no DOM of its own.
//
// Promises: what is shown lies between two fixes that were received, and comes to rest on the
// newest: never beyond it. The way from one fix to the next takes as long as the driver took
// between them, so a marker is one interval behind. A gap is jumped, not made up.

/** Without a fix for this long a position is stale, ms. */
export const STALE_MS = 15_000;
/** A glide takes at least and at most so long, ms. */
const SHORTEST_GLIDE_MS = 200;
const LONGEST_GLIDE_MS = 6_000;
/** A turn takes at most so long, ms. */
const LONGEST_TURN_MS = 700;
/** A longer step than this is a gap, not a way that was driven, m. */
const LONGEST_STEP_M = 1_000;
/** From this speed on a driver counts as moving, m/s. */
const MOVING_MPS = 1;
/** A step below this says nothing about the heading, m. */
const HEADING_STEP_M = 4;

const EARTH_RADIUS_M = 6_371_008.8;
const RAD = Math.PI / 180;

/** The difference b − a of two angles in degrees, the short way round: −180 ≤ it < 180. */
export function shortestTurn(a, b) {
  return ((((b - a) % 360) + 540) % 360) - 180;
}

/** Great-circle distance, m. */
export function distanceM(a, b) {
  const dLat = (b.latitude - a.latitude) * RAD;
  const dLng = (b.longitude - a.longitude) * RAD;
  const h = Math.sin(dLat / 2) ** 2
    + Math.cos(a.latitude * RAD) * Math.cos(b.latitude * RAD) * Math.sin(dLng / 2) ** 2;
  return 2 * EARTH_RADIUS_M * Math.asin(Math.min(1, Math.sqrt(h)));
}

/** Bearing from a to b, degrees clockwise from north. */
export function bearing(a, b) {
  const dLng = shortestTurn(a.longitude, b.longitude) * Math.cos(((a.latitude + b.latitude) / 2) * RAD);
  return (Math.atan2(dLng, b.latitude - a.latitude) / RAD + 360) % 360;
}

/** Whether a fix says that the driver moves: its speed, else the speed from the fix before. */
export function isMoving(fix, before) {
  if (typeof fix.speed === "number" && fix.speed >= 0) return fix.speed >= MOVING_MPS;
  if (!before || fix.at <= before.at) return false;
  return (distanceM(before, fix) * 1000) / (fix.at - before.at) >= MOVING_MPS;
}

/**
 * One driver's marker. All times are ms of one monotonic clock, given by the caller; a fix is
 * `{longitude, latitude, heading?, speed?, at, age_ms}`.
 */
export class Mover {
  newest = null;
  moving = false;
  #from = null;
  #to = null;
  #beganMs = 0;
  #glideMs = 0;
  #receivedMs = 0;
  #settled = true;

  /** Takes a fix; one that is no newer than the newest is left out. `jump`: without a glide. */
  take(fix, nowMs, jump = false) {
    const before = this.newest;
    if (before && fix.at < before.at) return false;
    const shown = before ? this.at(nowMs) : null;
    this.moving = isMoving(fix, before);
    this.newest = fix;
    this.#receivedMs = nowMs - Math.max(0, fix.age_ms ?? 0);
    const step = before ? distanceM(shown, fix) : 0;
    const interval = before ? fix.at - before.at : 0;
    let heading = typeof fix.heading === "number" && fix.heading >= 0 ? fix.heading : null;
    if (heading === null && before && step >= HEADING_STEP_M) heading = bearing(shown, fix);
    this.#to = { longitude: fix.longitude, latitude: fix.latitude, heading: heading ?? shown?.heading ?? null };
    const gap = !before || interval >= STALE_MS || step > LONGEST_STEP_M;
    if (jump || gap) {
      this.#from = this.#to;
      this.#glideMs = 0;
    } else {
      this.#from = shown;
      this.#glideMs = Math.min(Math.max(interval, SHORTEST_GLIDE_MS), LONGEST_GLIDE_MS);
    }
    this.#beganMs = nowMs;
    this.#settled = false;
    return true;
  }

  /** How long ago the server received the newest fix, ms. */
  ageMs(nowMs) {
    return nowMs - this.#receivedMs;
  }

  isStale(nowMs) {
    return this.newest !== null && this.ageMs(nowMs) >= STALE_MS;
  }

  /** Whether `at` will give another place than it gave last. */
  isGliding() {
    return !this.#settled;
  }

  /** Where to show the driver: `{longitude, latitude, heading|null}`, or null before any fix. */
  at(nowMs) {
    if (!this.#to) return null;
    const passed = Math.max(0, nowMs - this.#beganMs);
    if (passed >= this.#glideMs || this.isStale(nowMs)) {
      this.#settled = true;
      return this.#to;
    }
    const part = passed / this.#glideMs;
    const turn = Math.min(1, passed / Math.min(this.#glideMs, LONGEST_TURN_MS));
    const { longitude, latitude, heading } = this.#from;
    return {
      longitude: longitude + shortestTurn(longitude, this.#to.longitude) * part,
      latitude: latitude + (this.#to.latitude - latitude) * part,
      heading: heading === null || this.#to.heading === null
        ? this.#to.heading
        : heading + shortestTurn(heading, this.#to.heading) * turn,
    };
  }
}
