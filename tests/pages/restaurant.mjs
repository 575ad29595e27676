// The restaurant's board: near, arrived, picked up, and who is late.

import { DESK, PHONE, assert, assertAccessible, link, open, order, sleep, update } from "./lib.mjs";

const PLACE = "restaurant-44";
const pickup = { longitude: 77.5946, latitude: 12.9716, place: PLACE };

const card = (it, id, state, timeout = 8000) =>
  it.page.waitForSelector(`.order[data-id="${id}"][data-state="${state}"]`, { timeout }).catch(async () => {
    const found = await it.page.$$eval(".order", (all) => all.map(({ dataset }) => `${dataset.id} ${dataset.state}`));
    throw new Error(`${id} is not ${state} within ${timeout} ms: ${found.join(", ") || "no orders"}`);
  });

export async function near_arrived_picked_up_and_departed() {
  const url = await link("place", PLACE);
  const it = await open(url, { size: DESK });
  const phone = await open(url, { size: PHONE, dark: true });
  await it.state("empty");
  assert.ok(await it.page.isVisible("#empty"));
  await it.shot("restaurant-empty");
  await order("p-1", undefined, "placed", { pickup });
  await card(it, "p-1", "waiting");
  await update(51, [-2000, 0], { ago_s: 55, heading: 90, speed: 9 });
  await order("p-1", 51, "assigned", { pickup });
  await order("p-2", 52, "assigned", { pickup });
  await card(it, "p-1", "coming");
  assert.match(await it.text('.order[data-id="p-1"] .order-eta'), /min/);
  await it.page.waitForSelector('.order[data-id="p-2"]');
  assert.match(await it.text('.order[data-id="p-2"] .order-words'), /no position yet/);
  await update(51, [-1200, 0], { ago_s: 38, heading: 90, speed: 9 });
  await sleep(1000);
  await update(51, [-400, 0], { ago_s: 20, heading: 90, speed: 9 });
  await card(it, "p-1", "near");
  await update(51, [-10, 0], { heading: 90, speed: 0 });
  await card(it, "p-1", "arrived", 16_000);
  await it.state("here");
  assert.match(await it.page.title(), /^\(1\) Driver here/);
  assert.equal(await it.page.getAttribute('.order[data-id="p-1"]', "data-fresh"), "yes", "a new arrival stands out");
  await it.page.waitForFunction(() => /Order p-1: Driver is here/.test(document.getElementById("spoken").textContent));
  await assertAccessible(it.page);
  await it.shot("restaurant-arrived");
  await phone.shot("restaurant-arrived-phone-dark");
  await order("p-1", 51, "picked_up", { pickup });
  await card(it, "p-1", "picked_up");
  assert.equal(await it.text('.column[data-group="arrived"] .count'), "0");
  await sleep(1000);
  await update(51, [600, 0], { heading: 90, speed: 9 });
  await card(it, "p-1", "departed");
  assert.equal(await it.text('.order[data-id="p-1"] .order-eta'), "", "a driver who has left is not followed");
  await assertAccessible(it.page);
  await assertAccessible(phone.page);
  await it.shot("restaurant-departed");
  await it.close();
  await phone.close();
}

export async function a_driver_out_of_touch_has_no_time_of_arrival() {
  const other = `${PLACE}-west`;
  await update(53, [-2200, 0], { heading: 90, speed: 9 });
  await order("p-3", 53, "assigned", { pickup: { ...pickup, place: other } });
  const it = await open(await link("place", other), { size: DESK, dark: true });
  await card(it, "p-3", "coming");
  await it.page.waitForSelector('.order[data-id="p-3"][data-stale="yes"]', { timeout: 18_000 });
  assert.match(await it.text('.order[data-id="p-3"] .order-foot'), /Last seen \d+ s ago/);
  assert.doesNotMatch(await it.text('.order[data-id="p-3"] .order-eta'), /min/);
  await assertAccessible(it.page);
  await it.shot("restaurant-stale-dark");
  await it.close();
}
