// The page: takes photographs in, has them judged, and shows what came of it.

import { Blocks } from "./blocks.js";
import * as camera from "./camera.js";
import { Item } from "./card.js";
import { Filter } from "./filter.js";
import * as histogram from "./histogram.js";
import * as intake from "./intake.js";
import { csv, isGood, sorter } from "./judgement.js";
import { keep, kept } from "./kept.js";
import * as outdated from "./outdated.js";
import { Progress } from "./progress.js";
import { Removed } from "./removed.js";
import { ask } from "./report.js";
import * as servedView from "./served.js";
import { figures, judge, Queue, served, windows } from "./service.js";
import * as spot from "./spot.js";
import { Tally } from "./tally.js";
import { Threshold } from "./threshold.js";
import { Viewer } from "./viewer.js";
import * as views from "./views.js";

const $ = (id) => document.getElementById(id);
const ASKED_AT_ONCE = 250; // files about which the system is asked
const BATCH = 60; // cards made at once, so that thousands of files do not freeze the page
const SERVED_EVERY_MS = 15_000;
const FOLLOW_AFTER_MS = 3_000;
const ARRANGE_EVERY_MS = 1_000;
const SLICE_MS = 5; // of a frame, for cards that nobody sees
const POINTER = matchMedia("(hover: hover)"); // a finger leaves the last card that it touched hovered

let items = [];
const coming = new Set(); // what was taken in, and is not among the items yet
let cleared = 0; // how often all were taken out
let facts = null; // what is served; null: nobody has said yet
let unsaved = false; // whether there are judgements that no CSV file has
let added = 0;
let stopper = new AbortController();

const threshold = new Threshold(redraw, (value) => {
  const { good, bad } = tally.kinds;
  say(`Threshold ${value.toFixed(3)}: ${good} good, ${bad} not good.`);
});
const thresholdOf = (answer) => threshold.of(answer);
const filter = new Filter(overview);
const progress = new Progress(say);
const kindOf = (item) => (item.answer ? (isGood(item.answer, thresholdOf(item.answer)) ? "good" : "bad") : item.state === "failed" ? "failed" : "waiting");
const tally = new Tally(kindOf);

function draw(item) {
  if (tally.has(item)) tally.count(item);
  drawCard(item);
  viewer.follow(item);
  camera.follow(item);
}

function drawCard(item) {
  item.draw(item.answer ? thresholdOf(item.answer) : threshold.value);
}

// --- one photograph ---------------------------------------------------------------------------------------------------

const asking = new Set(); // what the service is asked about now
const queue = new Queue(async (item) => {
  asking.add(item);
  try {
    await work(item);
  } finally {
    asking.delete(item);
  }
});

async function work(item) {
  item.state = "judging";
  item.error = item.note = null;
  draw(item);
  if (facts && item.file.size > facts.max_bytes) {
    fail(item, `the file has ${(item.file.size / 1e6).toFixed(1)} MB; at most ${(facts.max_bytes / 1e6).toFixed(1)} are accepted`, false);
    return;
  }
  const signal = stopper.signal;
  try {
    const answer = await judge(item.file, signal, (seconds, reason) => {
      item.note = `${reason}; again in ${Math.round(seconds)} s`;
      draw(item);
      soon();
    }, Boolean(item.answer));
    item.straightened = facts ? (facts.model?.straightened ?? false) : null;
    item.take(answer);
    unsaved = true;
    item.retried = false;
    retryLost();
    if (reachable) follow(answer);
    else look();
    changed(item);
  } catch (error) {
    if (error.name !== "AbortError") lose(item, error);
    else if (tally.has(item)) fail(item, "stopped");
    else item.state = "waiting"; // taken out with all the others: if it comes back, it is judged
  }
}

/** What was judged before keeps its judgement; `passes`: whether it may go otherwise when it is tried again. */
function fail(item, reason, passes = true) {
  item.passes = passes;
  if (item.answer) Object.assign(item, { state: "judged", note: `not judged again: ${reason}` });
  else Object.assign(item, { state: "failed", note: null, error: reason });
  changed(item);
}

const lost = new Set(); // what was given up while the service was away or full
function lose(item, { message, passes = true }) {
  fail(item, message, passes);
  if (passes && !item.retried) lost.add(item);
}

/** The service answers: what it was away for has another turn, but only one, as one photograph may be what ends it. */
function retryLost() {
  if (!lost.size) return;
  const some = items.filter((item) => lost.has(item) && item.state === "failed");
  lost.clear();
  for (const item of some) item.retried = true;
  if (some.length) again(some);
}

const isServed = (answer) => [facts?.model?.sha256, facts?.trial?.sha256].includes(answer.model_digest.slice("sha256:".length));
const isOutdated = ({ answer }) => !isServed(answer);
let following = null;
/** Another version answers: the page's facts are old. While replicas change, two answer in turns; now and then is enough. */
function follow(answer) {
  if (isServed(answer)) return;
  following ??= setTimeout(() => {
    following = null;
    look();
  }, Math.max(0, lookedAt + FOLLOW_AFTER_MS - Date.now()));
}

function changed(item) {
  draw(item);
  if (item.near) heatIfWanted(item);
  progress.step();
  soon();
}

// --- all of them ------------------------------------------------------------------------------------------------------

let onPaper = null; // while it is printed: what is far from the screen, and loaded all the same
const blocks = new Blocks((item, near) => {
  if (onPaper) {
    if (near) onPaper.delete(item);
    else onPaper.add(item);
  }
  item.setNear(near || onPaper !== null);
  if (!near) return;
  drawCard(item);
  heatIfWanted(item);
}, arrange);

const listed = () => items.filter((item) => filter.takes(kindOf(item))).sort(sorter($("sort").value, thresholdOf));

let scheduled = false;
/** Draws the counts with the next frame, however often it is asked, and the cards' order a little later. */
function soon() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    drawCounts();
    arrangeLater();
  });
}

function overview() {
  drawCounts();
  arrange();
}

function drawCounts() {
  const counts = tally.kinds;
  const model = facts?.model;
  const waits = [...asking].find((item) => item.note); // its card may be far from what is on the screen
  const old = model ? [...tally.judges.values()].filter(isOutdated) : [];
  filter.draw(counts, model?.classes ?? ["good", "not good"]);
  histogram.draw(tally.bars, threshold.value);
  progress.draw(counts, queue.busy > 0, tally.retriable > 0, waits?.note);
  outdated.draw(old, model, threshold.moved);
  $("heat-words").hidden = !tally.heated;
  $("work").hidden = items.length === 0;
  $("drop").classList.toggle("small", items.length > 0);
  $("spot-check").disabled = counts.good + counts.bad === 0;
  const { kind } = filter;
  $("export").disabled = (kind === "all" ? counts.good + counts.bad + counts.failed : counts[kind]) === 0;
  $("export").textContent = kind === "all" ? "Export CSV" : `Export CSV (${counts[kind]})`;
}

let arrangedAt = 0;
let arranging = null;
/** While answers come in: not each time, and not while the pointer is on a card, which would be another one then. */
function arrangeLater() {
  arranging ??= setTimeout(() => {
    arranging = null;
    const isPointedAt = POINTER.matches && $("cards").querySelector(".card:hover");
    if (!isPointedAt) return arrange();
    arrangedAt = Date.now();
    arrangeLater();
  }, Math.max(0, arrangedAt + ARRANGE_EVERY_MS - Date.now()));
}

function arrange() {
  arrangedAt = Date.now();
  const shown = listed();
  blocks.arrange(shown);
  $("nothing").hidden = items.length === 0 || shown.length > 0;
}

let rest = null; // cards that are far from the screen, and still show an older threshold

/** Judges all of them anew: the counts and what is near the screen at once, the other cards a few in each frame. */
function redraw() {
  for (const item of items) {
    tally.count(item);
    if (item.near) drawCard(item);
  }
  viewer.draw();
  overview();
  const isDrawing = rest !== null;
  rest = items.values();
  if (!isDrawing) requestAnimationFrame(() => drawRest(SLICE_MS));
}

function drawRest(milliseconds) {
  const until = performance.now() + milliseconds;
  for (let next = rest?.next(); next && !next.done; next = rest.next()) {
    if (!next.value.near) drawCard(next.value);
    if (performance.now() < until) continue;
    requestAnimationFrame(() => drawRest(SLICE_MS));
    return;
  }
  rest = null;
}

function say(text) {
  $("live").textContent = text;
}

// --- taking photographs in --------------------------------------------------------------------------------------------

const keyOf = ({ file, path }) => `${path}\n${file.size}\n${file.lastModified}`;

const frame = () => new Promise(requestAnimationFrame);

/** The browser asks the system about each file, and waits for it; then it knows. So of many, some in each frame. */
async function known(photographs) {
  for (let start = ASKED_AT_ONCE; start < photographs.length; start += ASKED_AT_ONCE) {
    await frame();
    photographs.slice(start, start + ASKED_AT_ONCE).forEach(keyOf);
  }
}

/** Adds what comes in, but for what is here already; gives what it has made of it. */
async function take(arriving) {
  const [current, before] = [stopper, cleared];
  const came = await arriving;
  if (came.photographs.length > ASKED_AT_ONCE) await known(came.photographs);
  if (cleared !== before) return []; // nobody has seen them yet: undo has nothing to bring back
  const here = new Set([...items, ...coming].map((item) => item.key));
  const fresh = [];
  for (const photograph of came.photographs) {
    const key = keyOf(photograph);
    if (here.has(key)) continue;
    here.add(key);
    fresh.push(Object.assign(new Item(photograph, added++, heatChanged), { key }));
  }
  const doubles = came.photographs.length - fresh.length;
  const words = [came.words(), doubles ? `${doubles} ${doubles > 1 ? "were" : "was"} here already.` : ""].filter(Boolean).join(" ");
  $("left-out").hidden = !words;
  $("left-out").textContent = words;
  if (!fresh.length) return fresh;
  say(fresh.length > 1 ? `${fresh.length} photographs are being judged.` : `${fresh[0].name} is being judged.`);
  progress.expect(fresh.length);
  for (const item of fresh) coming.add(item);
  for (let start = 0; start < fresh.length; start += BATCH) {
    const batch = fresh.slice(start, start + BATCH).filter((item) => coming.delete(item)); // but what was cleared meanwhile
    if (!batch.length) break;
    items.push(...batch);
    for (const item of batch) {
      tally.count(item);
      draw(item);
    }
    if (stopper === current) queue.add(batch);
    else for (const item of batch) fail(item, "stopped");
    overview();
    await frame();
  }
  return fresh;
}

// --- tools ------------------------------------------------------------------------------------------------------------

$("sort").addEventListener("change", () => {
  keep("sessionStorage", "sort", $("sort").value);
  overview();
});
function setSize() {
  $("cards").style.setProperty("--size", `${$("size").value}px`);
  keep("sessionStorage", "size", $("size").value);
}
$("size").addEventListener("input", setSize);

function heatChanged(item) {
  draw(item);
  soon();
}

const wantsHeat = () => $("heat-all").getAttribute("aria-pressed") === "true";
let heating = Promise.resolve();
/** One at a time, behind what the user asks for himself. */
function heatIfWanted(item) {
  if (!wantsHeat() || item.heat) return;
  heating = heating.then(() => (wantsHeat() && item.near && item.answer && !item.heat ? item.setHeat(true) : null));
}
$("heat-all").addEventListener("click", () => {
  const on = !wantsHeat();
  $("heat-all").setAttribute("aria-pressed", String(on));
  for (const item of items) {
    if (!on && item.heat) item.setHeat(false);
    else if (on && item.near) heatIfWanted(item);
  }
});

$("export").addEventListener("click", () => {
  const url = URL.createObjectURL(new Blob([csv(listed(), thresholdOf)], { type: "text/csv;charset=utf-8" }));
  const now = new Date();
  const two = (number) => String(number).padStart(2, "0");
  const time = `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}-${two(now.getHours())}${two(now.getMinutes())}`;
  const link = Object.assign(document.createElement("a"), { href: url, download: `mergeline-${time}.csv` });
  link.click();
  unsaved &&= filter.kind !== "all"; // else there are judgements that it does not have
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
});

function halt() {
  stopper.abort();
  stopper = new AbortController();
  return queue.drain();
}
$("stop").addEventListener("click", () => halt().forEach((item) => fail(item, "stopped")));
$("retry").addEventListener("click", () => again(items.filter((item) => item.retriable)));
$("rejudge").addEventListener("click", () => again(items.filter((item) => item.state === "judged" && isOutdated(item))));
$("clear").addEventListener("click", () => {
  const rest = [...coming];
  cleared++;
  coming.clear();
  halt();
  progress.forget();
  filter.reset();
  takeOut([...items, ...rest]);
  $("pick").focus();
});

// --- taking photographs out -------------------------------------------------------------------------------------------

const removed = new Removed(bringBack);

function takeOut(some) {
  removed.add(some, unsaved);
  const gone = new Set(some);
  items = items.filter((item) => !gone.has(item));
  progress.withdraw(queue.drain(gone).length); // they shall not count as some of the line
  for (const item of some) tally.discount(item);
  unsaved &&= items.length > 0;
  overview();
}

/** Takes in again what was taken out, but for what is here already; gives it. */
function bringBack(some, wereUnsaved) {
  const here = new Set([...items, ...coming].map((item) => item.key));
  const last = [...some].reverse().filter((item) => !here.has(item.key) && here.add(item.key)); // once, as it was last
  const back = last.sort((a, b) => a.index - b.index);
  items = [...back, ...items].sort((a, b) => a.index - b.index);
  unsaved ||= wereUnsaved;
  for (const item of back) {
    tally.count(item);
    draw(item);
  }
  const unasked = back.filter((item) => item.state === "waiting");
  if (unasked.length) progress.expect(unasked.length);
  queue.add(unasked);
  overview();
  viewer.draw(); // there are more to go to
  return back;
}

function again(some) {
  progress.expect(some.length);
  for (const item of some) {
    Object.assign(item, { state: "waiting", error: null });
    draw(item);
  }
  queue.add(some);
  overview();
}

const wrong = (item) => ask(item, thresholdOf(item.answer), () => {
  draw(item);
  say(item.report ? `Reported: ${item.name} is ${item.report.label}. Thank you.` : `Taken back: what was said of ${item.name}.`);
});
const viewer = new Viewer(listed, thresholdOf, { onWrong: wrong, onRemove: (item) => takeOut([item]) });

function remove(item) {
  const cards = listed().map((one) => one.card);
  const place = cards.indexOf(item.card);
  takeOut([item]);
  ((cards[place + 1] ?? cards[place - 1])?.item.part.photo ?? $("pick")).focus();
}

$("spot-check").addEventListener("click", () => spot.begin(items.filter((item) => item.answer)));
$("cards").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const item = button.closest(".card").item;
  if (button.classList.contains("photo")) viewer.open(item);
  if (button.classList.contains("heat")) item.setHeat(!item.heat);
  if (button.classList.contains("wrong")) wrong(item);
  if (button.classList.contains("again")) again([item]);
  if (button.classList.contains("remove")) remove(item);
});
$("cards").addEventListener("keydown", (event) => {
  const found = event.key === "Delete" && event.target.closest(".card");
  if (found) remove(found.item);
});

// --- what is served ---------------------------------------------------------------------------------------------------

let looking = false;
let lookedAt = 0;
let reachable = true;
let lately = null;
let drift = null;
async function look() {
  if (looking) return;
  looking = true;
  lookedAt = Date.now();
  try {
    facts = await served();
    reachable = true;
    const model = facts.model;
    // In two parts, so that on a narrow screen the name is cut and not the version.
    $("model").replaceChildren(...(model ? [`${model.name} · `, `v${model.version}`] : ["no model"]).map((text) => Object.assign(document.createElement("span"), { textContent: text })));
    document.title = model ? `${model.name} · Mergeline` : "Mergeline"; // one tab for each line
    $("notice").hidden = model !== null;
    $("notice").textContent = model ? "" : `No model is served${facts.load_error ? `: ${facts.load_error}` : " yet"}.`;
    $("formats").textContent = `PNG, JPEG, BMP or TIFF, up to ${(facts.max_bytes / 1e6).toFixed(0)} MB each; or paste one`;
    document.body.classList.toggle("no-feedback", !facts.feedback);
    for (const item of items.filter((one) => one.straightened === null)) {
      item.straightened = model?.straightened ?? false;
      draw(item);
    }
    threshold.follow(model?.threshold);
    soon();
    servedView.draw(facts, lately, drift);
    if (!$("served").hidden) {
      [lately, drift] = await Promise.all([figures(), windows()]);
      servedView.draw(facts, lately, drift);
    }
  } catch (error) {
    reachable = false;
    $("model").textContent = "not reachable";
    servedView.drawError(error);
  } finally {
    looking = false;
  }
}

// --- paper, leaving, and the start ------------------------------------------------------------------------------------

// What is not near the screen is not loaded; paper shows all of it.
addEventListener("beforeprint", () => {
  drawRest(Infinity);
  onPaper = new Set(items.filter((item) => !item.near));
  for (const item of onPaper) item.setNear(true, item.file); // nobody waits until it is small
});
addEventListener("afterprint", () => {
  const far = onPaper ?? [];
  onPaper = null;
  for (const item of far) item.setNear(false);
});

addEventListener("beforeunload", (event) => {
  if (queue.busy || unsaved) event.preventDefault();
});
$("sort").value = kept("sessionStorage", "sort") ?? "added";
$("size").value = kept("sessionStorage", "size") ?? 220;
setSize();
threshold.begin();
intake.begin(take);
views.begin((name) => name === "served" && look());
look();
// Only for who sees it: answers to photographs tell by themselves when another model has come.
setInterval(() => document.visibilityState === "visible" && (!$("served").hidden || !facts?.model || !reachable) && look(), SERVED_EVERY_MS);
