// The shared modules' arithmetic and parsing, in the browser that runs them.

import { assert, open } from "./lib.mjs";

const BLANK = `${process.env.RIDERFLOW_PAGES_URL}/track/none`;

async function inPage(work) {
  const it = await open(BLANK);
  await it.state("refused");
  const result = await it.page.evaluate(work);
  await it.close();
  return result;
}

export async function events_are_parsed_however_they_are_cut() {
  const faults = await inPage(async () => {
    const { EventParser } = await import("/assets/sse.js");
    const text = "\uFEFF: hello\nretry: 700\r\n\r\nid: a/1\r\nevent: position\r\ndata: {\"x\":1}\r\ndata: 2\r\n\r\nevent: none\n\ndata:é\r\r: beat\n\nid\ndata: last\n\nid: never\ndata: cut";
    const wanted = JSON.stringify([
      { type: "position", data: '{"x":1}\n2', id: "a/1" },
      { type: "message", data: "é", id: "a/1" },
      { type: "message", data: "last", id: "" },
    ]);
    const found = [];
    for (let first = 0; first <= text.length; first += 1) {
      for (const second of [first, Math.min(text.length, first + 1), Math.min(text.length, first + 7)]) {
        const parser = new EventParser();
        const events = [text.slice(0, first), text.slice(first, second), text.slice(second)].flatMap((part) => parser.push(part));
        if (JSON.stringify(events) !== wanted || parser.retryMs !== 700 || parser.lastId !== "") found.push([first, second, events]);
      }
    }
    return found;
  });
  assert.deepEqual(faults, []);
}

export async function pauses_double_are_random_and_end_at_thirty_seconds() {
  const pauses = await inPage(async () => {
    const { pauseMs } = await import("/assets/sse.js");
    return [0, 1, 2, 3, 9].map((n) => [pauseMs(1000, n, () => 0), pauseMs(1000, n, () => 1)]);
  });
  assert.deepEqual(pauses, [[500, 1000], [1000, 2000], [2000, 4000], [4000, 8000], [15000, 30000]]);
}

export async function a_marker_is_never_beyond_its_newest_fix() {
  const told = await inPage(async () => {
    const { Mover, distanceM, shortestTurn } = await import("/assets/motion.js");
    const fix = (i, at, more) => ({ longitude: 77.6 + i * 1e-4, latitude: 12.97, at, age_ms: 0, ...more });
    const mover = new Mover();
    mover.take(fix(0, 0, { heading: 350 }), 1000);
    mover.take(fix(1, 1000, { heading: 10 }), 2000);
    const half = mover.at(2500);
    const end = mover.at(3000);
    const late = mover.at(9000);
    // A fix in mid-glide: on from where it is shown, without a jump.
    mover.take(fix(2, 2000), 9000);
    const before = mover.at(9400);
    mover.take(fix(3, 3000), 9400);
    const step = distanceM(before, mover.at(9401));
    // Older ones and gaps.
    const older = mover.take(fix(9, 500), 9500);
    mover.take(fix(4, 60_000), 60_000);
    const gap = mover.at(60_001);
    const jumped = new Mover();
    jumped.take(fix(0, 0), 0);
    jumped.take(fix(1, 1000), 1000, true);
    // Random walks: always within the box of the last two shown fixes, at rest on the newest.
    let beyond = 0;
    const walk = new Mover();
    let now = 0;
    let at = 0;
    let x = 0;
    for (let i = 0; i < 2000; i += 1) {
      const shown = walk.at(now)?.longitude ?? 77.6;
      now += Math.random() * 3000;
      at += 1 + Math.random() * 3000;
      x += Math.random() * 4 - 2;
      const next = fix(x, at);
      const from = walk.at(now)?.longitude ?? next.longitude;
      walk.take(next, now);
      const [low, high] = [Math.min(from, next.longitude) - 1e-12, Math.max(from, next.longitude) + 1e-12];
      for (const later of [0, 100, 900, 2500, 7000]) {
        const { longitude } = walk.at(now + later);
        if (longitude < low || longitude > high) beyond += 1;
      }
      if (walk.at(now + 7000).longitude !== next.longitude) beyond += 1;
      void shown;
    }
    return {
      half: [half.longitude, half.heading], end, late, step, older, gap: gap.longitude, jumped: jumped.at(1000).longitude, beyond,
      turns: [shortestTurn(350, 10), shortestTurn(10, 350), shortestTurn(0, 180), shortestTurn(90, 90)],
      stale: [new Mover().isStale(0), mover.isStale(74_999), mover.isStale(75_000)],
    };
  });
  assert.ok(Math.abs(told.half[0] - 77.60005) < 1e-9, JSON.stringify(told.half));
  assert.ok(told.half[1] >= 350 && told.half[1] <= 370, "it turns through north");
  assert.equal(told.end.longitude, 77.6001);
  assert.deepEqual(told.end, told.late);
  assert.ok(told.step < 0.2, `no jump in mid-glide: ${told.step} m`);
  assert.equal(told.older, false);
  assert.equal(told.gap, 77.6004);
  assert.equal(told.jumped, 77.6001);
  assert.equal(told.beyond, 0);
  assert.deepEqual(told.turns, [20, -20, -180, 0]);
  assert.deepEqual(told.stale, [false, false, true]);
}

export async function numbers_are_said_as_people_say_them() {
  const told = await inPage(async () => {
    const { ServerClock, distanceText, durationText, etaText, eventType, placeName } = await import("/assets/format.js");
    const { describe } = await import("/assets/track_state.js");
    const clock = new ServerClock();
    const unheard = clock.now();
    clock.hear(5_000_000);
    return {
      eta: [[240, 432], [20, 29], [20, 50], [65, 119], [0, 130], [3000, 7500]].map(([min, max]) => etaText({ min, max })).concat(etaText(undefined)),
      distance: [3, 44, 996, 1234, 9999, 15_400, undefined].map(distanceText),
      duration: [0, 23_900, 60_000, 3_599_000, 7_500_000, 90_000_000].map(durationText),
      type: [eventType("riderflow.agent.near.v1"), eventType("agent.near")],
      place: [placeName("restaurant-9"), placeName("")],
      unheard, near: Math.abs(clock.now() - 5_000_000) < 50,
      ends: ["delivered", "cancelled", "expired", "removed"].map((ended) => describe({ ended, order: null, events: [] }).title),
    };
  });
  assert.deepEqual(told.eta, ["4–8 min", "under a minute", "1 min", "1–2 min", "1–3 min", "50 min–2 h 5 min", null]);
  assert.deepEqual(told.distance, ["10 m", "40 m", "1.0 km", "1.2 km", "10.0 km", "15 km", null]);
  assert.deepEqual(told.duration, ["0 s", "23 s", "1 min", "59 min", "2 h 5 min", "1 day"]);
  assert.deepEqual(told.type, ["agent.near", "agent.near"]);
  assert.deepEqual(told.place, ["Restaurant 9", ""]);
  assert.equal(told.unheard, null);
  assert.ok(told.near);
  assert.deepEqual(told.ends, ["Delivered", "Order cancelled", "This link has expired", "This order is closed"]);
}

export async function after_a_sleep_of_the_device_the_stream_is_opened_anew() {
  const asked = await inPage(async () => {
    const { LiveStream } = await import("/assets/sse.js");
    const times = [];
    window.fetch = async (_, { signal }) => {
      times.push(performance.now());
      const start = (body) => signal.addEventListener("abort", () => body.error(signal.reason));
      return new Response(new ReadableStream({ start }), { status: 200 });
    };
    const stream = new LiveStream({ url: "/none", token: "t" });
    await new Promise((done) => setTimeout(done, 1500));
    const awake = times.length;
    // The page's own clock stands still in a sleep, the wall clock goes on.
    const now = Date.now.bind(Date);
    Date.now = () => now() + 60_000;
    const began = performance.now();
    while (times.length < 2 && performance.now() - began < 20_000) await new Promise((done) => setTimeout(done, 50));
    stream.close();
    return [awake, times.length];
  });
  assert.deepEqual(asked, [1, 2]);
}
