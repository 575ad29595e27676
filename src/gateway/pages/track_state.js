// What a customer is told, as words: a pure function of what the stream has said.

import { distanceText, durationText, etaText, eventType, placeName } from "./format.js";

/** Within this distance of the drop-off a driver is arriving, m. */
const ARRIVING_M = 500;

export const STEPS = ["Placed", "Assigned", "Picked up", "Delivered"];
const STEP_OF = { placed: 0, assigned: 1, picked_up: 2, delivered: 3 };

const TOLD = {
  "order.assigned": () => "A driver was assigned",
  "order.picked_up": () => "Your order was picked up",
  "order.delivered": () => "Delivered",
  "order.cancelled": () => "The order was cancelled",
  "agent.near": (event, from) => (event.leg === "pickup" ? `The driver is close to ${from}` : "The driver is close to you"),
  "agent.arrived": (event, from) => (event.leg === "pickup" ? `The driver reached ${from}` : "The driver reached you"),
  "agent.departed": (event, from) => (event.leg === "pickup" ? `The driver left ${from}` : "The driver left your address"),
  "driver.silent": () => "The driver's phone went quiet",
  "driver.resumed": () => "The driver's phone is back",
};

export function pickupName(order) {
  return order?.pickup?.place ? placeName(order.pickup.place) : "the pickup point";
}

/** One event as a sentence, or null for kinds that say nothing to a customer. */
export function eventText(event, order) {
  return TOLD[eventType(event.type)]?.(event, pickupName(order)) ?? null;
}

/** Whether the driver stands at the target, by the order's events (oldest first). */
function hasArrived(events, target) {
  let arrived = false;
  for (const event of events) {
    const type = eventType(event.type);
    if (type === "order.assigned") arrived = false;
    if (event.leg !== target) continue;
    if (type === "agent.arrived") arrived = true;
    if (type === "agent.departed") arrived = false;
  }
  return arrived;
}

/**
 * The state of the page: `{state, title, detail, eta, seen, step}`.
 *
 * `view` is `{order, agent, target, distance_m, eta_s, events, ended}`; `moving`, `ageMs` and
 * `stale` come from the marker. `state` is one of waiting, moving, stopped, arriving, arrived,
 * stale, ended.
 */
export function describe(view, { moving = false, stale = false, ageMs = 0 } = {}) {
  const { order, agent, target, events, ended } = view;
  if (ended) return describeEnd(ended, view);
  const step = STEP_OF[order.status] ?? 0;
  const from = pickupName(order);
  const toYou = target === "dropoff";
  if (!agent) {
    const assigned = order.status === "assigned" || order.status === "picked_up";
    return {
      state: "waiting", step, eta: null, seen: null,
      title: assigned ? "Your driver is getting ready" : "Finding a driver",
      detail: assigned ? "Their position shows here as soon as it is known." : `Your order from ${from} will be on its way as soon as a driver takes it.`,
    };
  }
  const arrived = hasArrived(events, target);
  const near = toYou && typeof view.distance_m === "number" && view.distance_m <= ARRIVING_M;
  let title;
  let detail;
  let state;
  if (arrived) {
    state = "arrived";
    title = toYou ? "Your driver is here" : `Waiting at ${from}`;
    detail = toYou ? "Please meet them at the door." : "Your order will be picked up next.";
  } else if (near) {
    state = "arriving";
    title = "Arriving now";
    detail = "Your driver is around the corner.";
  } else {
    state = moving ? "moving" : "stopped";
    title = toYou ? "On the way to you" : `On the way to ${from}`;
    if (moving) detail = toYou ? "Your order has been picked up." : "Your driver goes to pick up your order.";
    else detail = toYou ? "Your driver has stopped for a moment." : "Your driver has stopped on the way there.";
  }
  const eta = arrived ? null : etaText(view.eta_s);
  if (!stale) return { state, step, title, detail, eta, seen: null };
  return {
    state: "stale", step, title, eta: null,
    detail: "The driver's phone is not sending its position right now.",
    seen: `Last seen ${durationText(ageMs)} ago`,
  };
}

function describeEnd(status, { order }) {
  const texts = {
    delivered: ["Delivered", "Enjoy! This page no longer shows your driver."],
    cancelled: ["Order cancelled", "This order was cancelled and is no longer followed."],
    expired: ["This link has expired", "Ask the sender for a new one to go on following your order."],
    removed: ["This order is closed", "It is no longer followed."],
  };
  const [title, detail] = texts[status] ?? texts.removed;
  return {
    state: "ended", title, detail, eta: null, seen: null,
    step: status === "delivered" ? STEPS.length : (STEP_OF[order?.status] ?? 0),
  };
}

/**
 * The one line that a customer looks for: `{label, main, side}`, or null when there is nothing
 * to say. What is old is said to be old, and gives no time of arrival.
 */
export function band(view, told) {
  if (view.ended || !view.agent || told.state === "arrived") return null;
  const where = view.target === "dropoff" ? "to you" : "to the pickup";
  const distance = distanceText(view.distance_m);
  if (told.state === "stale") {
    return { label: "", main: told.seen, side: distance ? `then ${distance} away` : "" };
  }
  if (told.eta) return { label: "Estimated time: ", main: told.eta, side: distance ? `${distance} ${where}` : "" };
  return distance ? { label: "Distance: ", main: distance, side: where } : null;
}
