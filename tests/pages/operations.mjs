// The operations map, with 2,000 drivers on it.

import { DESK, PHONE, assert, assertAccessible, ask, at, link, open, sleep, update } from "./lib.mjs";

const DRIVERS = 2000;
const LEAST_FPS = 20;

const framesPerSecond = (page, seconds = 5) => page.evaluate((ms) => new Promise((resolve) => {
  let frames = 0;
  const began = performance.now();
  const frame = () => {
    frames += 1;
    const passed = performance.now() - began;
    if (passed < ms) requestAnimationFrame(frame);
    else resolve((frames * 1000) / passed);
  };
  requestAnimationFrame(frame);
}), seconds * 1000);

const square = (east, north, half) => {
  const corner = (x, y) => { const { longitude, latitude } = at(east + x * half, north + y * half); return [longitude, latitude]; };
  return { type: "Polygon", coordinates: [[corner(-1, -1), corner(1, -1), corner(1, 1), corner(-1, 1), corner(-1, -1)]] };
};

const liveRequests = (it) => it.requests.filter((url) => url.includes("/v1/fleet/live"));

async function makeFences() {
  await ask("fence", { id: "f-1", feature: { type: "Feature", id: "f-1", properties: { name: "North market", kind: "zone" }, geometry: square(-400, 500, 350) } });
  await ask("fence", { id: "f-2", feature: { type: "Feature", id: "f-2", properties: { name: "Depot", kind: "depot", radius: 260 }, geometry: { type: "Point", coordinates: Object.values(at(700, -500)) } } });
}

export async function two_thousand_drivers_move_smoothly() {
  await makeFences();
  await ask("fleet", { drivers: DRIVERS, interval_ms: 1000 });
  const it = await open(await link("fleet"), { size: DESK });
  await it.state("live", 15_000);
  await it.page.waitForFunction((many) => Number(document.documentElement.dataset.drivers) >= many, DRIVERS, { timeout: 20_000 });
  await it.page.waitForFunction(() => document.getElementById("vehicles").dataset.fps, undefined, { timeout: 10_000 });
  await sleep(2000);
  const fps = await framesPerSecond(it.page);
  const painted = Number(await it.page.getAttribute("#vehicles", "data-fps"));
  await it.shot("operations");
  assert.ok(fps >= LEAST_FPS && painted >= LEAST_FPS, `${fps.toFixed(1)} frames a second, ${painted} of them with drivers drawn`);

  // They do move: the same pixels are not there twice.
  const pixels = () => it.page.evaluate(() => document.getElementById("vehicles").toDataURL());
  const first = await pixels();
  await sleep(400);
  assert.notEqual(await pixels(), first, "drivers move");
  await it.page.click("#pause");
  await it.state("paused");
  await sleep(300);
  const still = await pixels();
  await sleep(1500);
  assert.equal(await pixels(), still, "nothing moves while paused");
  assert.match(await it.text("#paused"), /Paused at/);
  await assertAccessible(it.page);
  await it.page.click("#pause");
  await it.state("live");

  // While the map is moved it stays smooth, and another part is asked for once it rests.
  const asked = liveRequests(it).length;
  const panned = framesPerSecond(it.page, 3);
  await it.page.mouse.move(800, 400);
  for (let i = 0; i < 6; i += 1) {
    await it.page.mouse.wheel(0, -240);
    await sleep(150);
  }
  const panning = await panned;
  assert.ok(panning >= LEAST_FPS / 2, `${panning.toFixed(1)} frames a second while zooming`);
  await it.page.waitForFunction((many) => Number(document.documentElement.dataset.drivers) < many, DRIVERS, { timeout: 8000 });
  const more = liveRequests(it).length - asked;
  assert.ok(more >= 1 && more <= 3, `asked ${more} times for other parts`);
  const bbox = new URL(liveRequests(it).at(-1)).searchParams.get("bbox").split(",").map(Number);
  assert.ok(bbox[0] < bbox[2] && bbox[1] < bbox[3] && bbox[2] - bbox[0] < 1, `${bbox}`);
  await it.shot("operations-close");
  await it.close();
  return `${fps.toFixed(1)} frames a second, ${painted} drawn, ${panning.toFixed(1)} while zooming`;
}

export async function drivers_are_found_and_told_of() {
  await ask("fleet_stop");
  await makeFences();
  await update(61, [-1400, 500], { ago_s: 40, heading: 90, speed: 7 });
  await update(61, [-400, 500], { heading: 270, speed: 7 });
  const it = await open(await link("fleet"), { size: DESK, dark: true });
  await it.state("live", 15_000);
  await it.page.waitForFunction(() => Number(document.documentElement.dataset.drivers) > 0);
  await it.page.fill("#query", "61");
  await it.page.press("#query", "Enter");
  await it.page.waitForSelector("#driver:visible");
  assert.match(await it.text("#driver-title"), /Driver 61/);
  assert.match(await it.text("#driver-facts"), /25 km\/h to the west/);
  await sleep(1200);
  await it.shot("operations-driver-dark");
  await it.page.keyboard.press("Escape");
  await it.page.waitForSelector("#driver", { state: "hidden" });
  await it.page.fill("#query", "999999999");
  await it.page.press("#query", "Enter");
  assert.match(await it.text("#search-note"), /not in this part/);

  // Events, by kind.
  await it.page.waitForSelector("#events li");
  assert.match(await it.text("#events"), /entered North market/);
  await it.page.selectOption("#event-filter", "order.");
  assert.doesNotMatch(await it.text("#events"), /entered/);
  await it.page.selectOption("#event-filter", "");

  // Lists by keyboard.
  await it.page.focus("#tab-events");
  await it.page.keyboard.press("ArrowRight");
  assert.ok(await it.page.isVisible("#list-drivers"));
  assert.equal(await it.page.getAttribute("#tab-drivers", "aria-selected"), "true");
  await it.page.click('#drivers [data-driver="61"]');
  assert.equal(await it.root("selected"), "61");
  await it.page.focus("#tab-drivers");
  await it.page.keyboard.press("End");
  assert.match(await it.text("#fences"), /Depot.*North market/s);
  await assertAccessible(it.page);

  // The legend hides a state.
  const stopped = it.page.locator('.state[data-state="moving"]');
  await stopped.click();
  assert.equal(await stopped.getAttribute("aria-pressed"), "false");
  await assertAccessible(it.page);
  await it.close();
}

export async function the_lists_do_without_webgl() {
  await update(62, [0, 0], { heading: 0, speed: 5 });
  const it = await open(await link("fleet"), { size: PHONE, webgl: false });
  await it.state("live", 15_000);
  await it.page.waitForSelector('html[data-webgl="no"]');
  assert.ok(await it.page.isVisible("#no-map"));
  await it.page.click("#tab-drivers");
  await it.page.waitForSelector('#drivers [data-driver="62"]');
  await it.page.fill("#query", "62");
  await it.page.press("#query", "Enter");
  assert.match(await it.text("#driver-facts"), /Moving/);
  await assertAccessible(it.page);
  await it.shot("operations-text");
  await it.close();
}

export async function a_wrong_link_is_said_to_be_one() {
  const it = await open(`${(await link("fleet")).replace(/#.*/, "")}#token=x.y.z`, { size: PHONE, expected: /status of 401/ });
  await it.state("refused");
  await assertAccessible(it.page);
  await it.close();
}
