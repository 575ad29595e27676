// The customer's page, from a driver's assignment to the end.

import { DESK, assert, assertAccessible, ask, link, markerMoves, markerRests, open, order, sleep, tabStops, update } from "./lib.mjs";

const REFUSAL = /status of 40[14]/;

export async function the_marker_moves_within_a_second_of_an_update() {
  await update(7, [-2000, 0], { heading: 90, speed: 8 });
  await order("o-1", 7, "assigned");
  const it = await open(await link("order", "o-1"));
  await it.state("moving");
  await it.page.waitForSelector(".agent");
  await it.page.waitForSelector('.agent .turn[transform^="rotate(90 "]', { state: "attached" });
  const took = [];
  for (let i = 1; i <= 6; i += 1) {
    await markerRests(it.page);
    const moved = markerMoves(it.page);
    await it.page.evaluate(() => 0);
    const sent = Date.now();
    await update(7, [-2000 + 40 * i, 0], { heading: 90, speed: 8 });
    took.push(Math.round((await moved) - sent));
  }
  assert.ok(Math.max(...took) < 1000, `ms from update to motion: ${took}`);
  await markerRests(it.page);
  await update(7, [-1780, 0], { heading: 350, speed: 8 });
  await it.page.waitForSelector('.agent .turn[transform^="rotate(-10 "], .agent .turn[transform^="rotate(350 "]', { state: "attached" });
  assert.equal(await it.root("target"), "pickup");
  assert.match(await it.text("#title"), /On the way to Restaurant 9/);
  assert.match(await it.text("#band"), /min.*km to the pickup/s);
  assert.match(await it.page.title(), /min · On the way/);
  await assertAccessible(it.page);
  await it.shot("customer-moving");
  await it.close();
  return `ms from update to motion: ${took.join(", ")}`;
}

export async function a_quiet_phone_is_said_to_be_quiet() {
  await order("o-2", 12, "assigned");
  await update(12, [-900, 0], { ago_s: 10, heading: 90, speed: 8 });
  // A browser whose clock is an hour off sees the same.
  const it = await open(await link("order", "o-2"), { clockOffMs: 3_600_000 });
  await it.state("moving");
  await update(12, [-870, 0], { heading: 90, speed: 8 });
  const quiet = Date.now();
  await it.state("moving");
  await sleep(12_500);
  assert.equal(await it.root("state"), "moving", "not stale before 15 s");
  await it.state("stale", 5000);
  const after = Date.now() - quiet;
  assert.ok(after >= 14_500 && after < 17_500, `stale after ${after} ms`);
  const place = await it.page.evaluate(() => document.querySelector(".agent").style.transform);
  const ages = [];
  for (let i = 0; i < 3; i += 1) {
    ages.push(Number((await it.text("#band-main")).match(/^Last seen (\d+) s ago$/)[1]));
    await sleep(1100);
  }
  assert.ok(ages[0] >= 15 && ages[1] > ages[0] && ages[2] > ages[1], `it counts up: ${ages}`);
  assert.equal(await it.page.evaluate(() => document.querySelector(".agent").style.transform), place, "nothing moves");
  assert.equal(await it.page.getAttribute(".agent", "data-state"), "stale");
  assert.match(await it.page.title(), /^No signal/);
  const spoken = await it.text("#spoken");
  assert.match(spoken, /not sending its position/);
  assert.doesNotMatch(spoken, /\d s/, "ages are not spoken");
  await assertAccessible(it.page);
  await it.shot("customer-stale");
  await update(12, [-840, 0], { heading: 90, speed: 8 });
  await it.state("moving", 2000);
  await it.close();
}

/** An element's style once the map has come to rest under it. */
async function settled(page, selector) {
  let style = await page.getAttribute(selector, "style");
  for (let tries = 0; tries < 20; tries += 1) {
    await sleep(800);
    const now = await page.getAttribute(selector, "style");
    if (now === style) return style;
    style = now;
  }
  throw new Error(`${selector} never comes to rest: ${style}`);
}

export async function another_driver_takes_over() {
  await update(21, [-1500, 0], { heading: 90, speed: 8 });
  await update(22, [-700, 300], { heading: 180, speed: 8 });
  await order("o-3", 21, "assigned");
  const it = await open(await link("order", "o-3"), { dark: true });
  await it.state("moving");
  await order("o-3", 22, "assigned");
  await it.page.waitForFunction(() => document.querySelectorAll("#timeline li").length >= 2 && document.documentElement.dataset.state === "moving");
  const fixAt = await it.root("fix-at");
  const shown = await settled(it.page, ".agent");
  for (const east of [-1450, -1400]) {
    await update(21, [east, 0], { heading: 90, speed: 8 });
    await sleep(1000);
  }
  assert.equal(await it.root("fix-at"), fixAt, "the former driver is not shown");
  assert.equal(await it.page.getAttribute(".agent", "style"), shown);
  assert.equal(await it.page.locator(".agent").count(), 1);
  await update(22, [-700, 250], { heading: 180, speed: 8 });
  await it.page.waitForFunction((before) => document.documentElement.dataset.fixAt !== before, fixAt, { timeout: 3000 });
  await it.shot("customer-reassigned-dark");
  await it.close();
}

export async function arriving_arrived_and_delivered() {
  await update(31, [20, 0], { ago_s: 50, speed: 0 });
  await order("o-4", 31, "assigned");
  await order("o-4", 31, "picked_up");
  const url = await link("order", "o-4");
  const it = await open(url, { size: DESK });
  const phone = await open(url, { dark: true });
  await it.state("stopped");
  assert.match(await it.text("#title"), /On the way to you/);
  await update(31, [600, 0], { ago_s: 25, heading: 90, speed: 12 });
  await it.state("moving");
  await update(31, [1200, 0], { heading: 90, speed: 12 });
  await it.state("arriving");
  await sleep(5000);
  await it.shot("customer-arriving");
  for (let i = 0; i < 13 && (await it.root("state")) !== "arrived"; i += 1) {
    await update(31, [1490, 0], { speed: 0, heading: 90 });
    await sleep(1000);
  }
  await it.state("arrived", 4000);
  assert.match(await it.text("#title"), /Your driver is here/);
  assert.match(await it.text("#spoken"), /Your driver is here/);
  await it.shot("customer-arrived");
  await phone.shot("customer-arrived-phone-dark");
  await order("o-4", 31, "delivered");
  await it.state("ended", 3000);
  await phone.state("ended", 3000);
  assert.equal(await it.root("ended"), "delivered");
  assert.equal(await it.page.locator(".agent").count(), 0, "the driver is not shown any more");
  assert.match(await it.page.title(), /^Delivered/);
  await assertAccessible(it.page);
  await assertAccessible(phone.page);
  const asked = it.requests.filter((url_) => url_.endsWith("/live")).length;
  await update(31, [1490, 40], { speed: 3 });
  await sleep(3500);
  assert.equal(it.requests.filter((url_) => url_.endsWith("/live")).length, asked, "no reconnect after the end");
  assert.equal(await it.page.locator(".agent").count(), 0);
  await it.shot("customer-ended");
  await phone.shot("customer-ended-phone-dark");
  await it.close();
  await phone.close();
  const again = await open(url, { expected: REFUSAL });
  await again.state("refused");
  await again.shot("customer-refused");
  await again.close();
}

export async function a_cancelled_order_ends_too() {
  await order("o-5", 35, "assigned");
  const it = await open(await link("order", "o-5"));
  await it.state("waiting");
  await order("o-5", 35, "cancelled");
  await it.state("ended", 3000);
  assert.match(await it.text("#title"), /Order cancelled/);
  await it.close();
}

export async function links_that_open_nothing_say_so() {
  await order("o-6", 36, "assigned");
  const own = await link("order", "o-6");
  const other = own.replace("/track/o-6", "/track/o-1");
  for (const url of [other, own.replace(/#.*/, ""), own.replace(/#.*/, "#token=x.y.z"), own.replace("/track/o-6", "/track/no%2Fsuch")]) {
    const it = await open(url, { expected: REFUSAL });
    await it.state("refused");
    assert.match(await it.text("h1"), /This link/);
    assert.equal(await it.page.locator("#card").count(), 0);
    await assertAccessible(it.page);
    await it.close();
  }
}

export async function it_works_as_text_without_webgl() {
  await update(41, [-900, 0], { ago_s: 20, heading: 90, speed: 8 });
  await order("o-7", 41, "assigned");
  const it = await open(await link("order", "o-7"), { webgl: false });
  await it.state("moving");
  await it.page.waitForSelector('html[data-webgl="no"]');
  assert.ok(await it.page.isVisible("#no-map"));
  assert.match(await it.text("#no-map"), /WebGL/);
  assert.ok(!(await it.page.isVisible("#map")));
  assert.match(await it.text("#band"), /to the pickup/);
  await update(41, [-500, 0], { heading: 90, speed: 8 });
  await it.page.waitForFunction(() => /^(4|5)\d\d m|500 m/.test(document.getElementById("band-side").textContent), undefined, { timeout: 3000 });
  await assertAccessible(it.page);
  await it.shot("customer-text");
  await it.close();
}

export async function less_motion_is_a_jump() {
  await update(44, [-900, 0], { ago_s: 4, heading: 90, speed: 8 });
  await order("o-8", 44, "assigned");
  const it = await open(await link("order", "o-8"), { still: true });
  await it.state("moving");
  await it.page.waitForSelector(".agent");
  await sleep(1000);
  const places = it.page.evaluate(() => new Promise((resolve) => {
    const marker = document.querySelector(".agent");
    const seen = new Set();
    const began = performance.now();
    const look = () => {
      seen.add(marker.style.transform);
      if (performance.now() - began < 2500) requestAnimationFrame(look);
      else resolve(seen.size);
    };
    look();
  }));
  await sleep(300);
  await update(44, [-880, 0], { heading: 90, speed: 8 });
  assert.equal(await places, 2, "where it was and where it is");
  await it.close();
}

export async function the_keyboard_reaches_everything() {
  await update(45, [-900, 0], { heading: 90, speed: 8 });
  await order("o-9", 45, "assigned");
  const it = await open(await link("order", "o-9"));
  await it.state("moving");
  await it.page.waitForSelector('html[data-webgl="yes"] .maplibregl-canvas');
  const stops = await tabStops(it.page, 4);
  assert.equal(stops[0], "skip", `${stops}`);
  assert.ok(stops.includes("maplibregl-canvas"), `${stops}`);
  assert.ok(stops.includes("summary"), `${stops}`);
  await it.page.focus("summary");
  await it.page.keyboard.press("Enter");
  assert.ok(await it.page.isVisible("#timeline"));
  await it.page.focus(".maplibregl-canvas");
  await it.page.keyboard.press("ArrowRight");
  await it.page.waitForSelector("#recenter:visible");
  await it.page.focus("#recenter");
  const outline = await it.page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(outline, "solid", "the focus is visible");
  await it.page.keyboard.press("Enter");
  assert.ok(!(await it.page.isVisible("#recenter")));
  await it.shot("customer-events");
  await it.close();
}

export async function a_lost_network_comes_back_by_itself() {
  await update(46, [-900, 0], { ago_s: 10, heading: 90, speed: 8 });
  await order("o-10", 46, "assigned");
  const it = await open(await link("order", "o-10"), { expected: /ERR_/ });
  await it.state("moving");
  const before = it.requests.filter((url) => url.endsWith("/live")).length;
  await ask("cut");
  await it.page.waitForFunction(() => document.documentElement.dataset.link !== "live", undefined, { timeout: 5000 });
  await it.page.waitForSelector('html[data-link="live"]', { timeout: 15_000, state: "attached" });
  assert.ok(it.requests.filter((url) => url.endsWith("/live")).length > before);
  await update(46, [-860, 0], { heading: 90, speed: 8 });
  await it.state("moving");
  await it.close();
}
