// The page: takes photographs in, has them judged, and shows what came of it.

import { Blocks } from "./blocks.js";
import * as camera from "./camera.js";
import { Item } from "./card.js";
import * as histogram from "./histogram.js";
import * as intake from "./intake.js";
import { csv, isGood, sorter } from "./judgement.js";
import { keep, kept } from "./kept.js";
import { ask } from "./report.js";
import * as servedView from "./served.js";
import { figures, judge, Queue, served, windows } from "./service.js";
import * as spot from "./spot.js";
import { Tally } from "./tally.js";
import { Viewer } from "./viewer.js";
import * as views from "./views.js";

const $ = (id) => document.getElementById(id);
const ASKED_AT_ONCE = 250; // files about which the system is asked
const BATCH = 60; // cards made at once, so that thousands of files do not freeze the page
const SERVED_EVERY_MS = 15_000;
const FOLLOW_AFTER_MS = 3_000;
const UNDO_MS = 10_000;
const THRESHOLD = `threshold of ${location.pathname}`; // each model of a fleet has its own page
const ARRANGE_EVERY_MS = 1_000;
const SLICE_MS = 5; // of a frame, for cards that nobody sees
const POINTER = matchMedia("(hover: hover)"); // a finger leaves the last card that it touched hovered

let items = [];
const coming = new Set(); // what was taken in, and is not among the items yet
let filter = "all";
let facts = null;
let moved = false; // whether the user chose the threshold; else each photograph is judged at its own model's
let threshold = 0.5; // where the slider stands
let unsaved = false; // whether there are judgements that no CSV file has
let added = 0;
let stopper = new AbortController();
let round = null; // since the queue was empty last: when it began, how many there are

const thresholdOf = (answer) => (moved ? threshold : answer.threshold);
const kindOf = (item) => (item.answer ? (isGood(item.answer, thresholdOf(item.answer)) ? "good" : "bad") : item.state === "failed" ? "failed" : "waiting");
const tally = new Tally(kindOf);

function draw(item) {
  if (tally.has(item)) tally.count(item);
  drawCard(item);
  viewer.follow(item);
  camera.follow(item);
}

function drawCard(item) {
  item.draw(item.answer ? thresholdOf(item.answer) : threshold);
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
let following = null;
/** Another version answers: the page's facts are old. While replicas change, two answer in turns; now and then is enough. */
function follow(answer) {
  if (isServed(answer)) return;
  following ??= setTimeout(() => {
    following = null;
    look();
  }, Math.max(0, lookedAt + FOLLOW_AFTER_MS - Date.now()));
}

/** So many more are to be judged. */
function expected(count) {
  round ??= { began: Date.now(), done: 0, total: 0 };
  round.total += count;
}

function changed(item) {
  draw(item);
  if (item.near) heatIfWanted(item);
  if (round) round.done++;
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

const visible = (item) => filter === "all" || filter === kindOf(item);
const listed = () => items.filter(visible).sort(sorter($("sort").value, thresholdOf));

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
  drawFilter(counts);
  histogram.draw(tally.bars, threshold);
  drawProgress(counts);
  drawOutdated();
  $("heat-words").hidden = !tally.heated;
  $("work").hidden = items.length === 0;
  $("drop").classList.toggle("small", items.length > 0);
  $("spot-check").disabled = counts.good + counts.bad === 0;
  $("export").disabled = (filter === "all" ? counts.good + counts.bad + counts.failed : counts[filter]) === 0;
  $("export").textContent = filter === "all" ? "Export CSV" : `Export CSV (${counts[filter]})`;
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

function drawFilter(counts) {
  const classes = facts?.model?.classes ?? ["good", "not good"];
  const names = { all: "All", good: classes[0], bad: classes.length === 2 ? classes[1] : "not good", failed: "Failed" };
  const group = $("filter");
  if (!group.children.length) {
    for (const kind of Object.keys(names)) {
      const button = document.createElement("button");
      button.setAttribute("role", "radio");
      button.dataset.kind = kind;
      button.append(document.createElement("span"), document.createElement("b"));
      group.append(button);
    }
  }
  for (const button of group.children) {
    const kind = button.dataset.kind;
    button.firstChild.textContent = names[kind];
    button.lastChild.textContent = counts[kind];
    button.setAttribute("aria-checked", String(kind === filter));
    button.tabIndex = kind === filter ? 0 : -1;
    button.hidden = kind === "failed" && !counts.failed && filter !== "failed";
  }
}

function drawProgress(counts) {
  const busy = queue.busy > 0;
  $("progress").hidden = !busy && counts.failed === 0;
  $("stop").hidden = $("bar").hidden = !busy;
  $("retry").hidden = busy || !tally.retriable;
  const failed = counts.failed ? `, ${counts.failed} could not be judged` : "";
  if (busy && round) {
    $("bar").max = round.total;
    $("bar").value = round.done;
    const waits = [...asking].find((item) => item.note); // its card may be far from what is on the screen
    const left = round.done > 4 ? ((Date.now() - round.began) / round.done) * (round.total - round.done) : 0;
    const more = waits ? `; ${waits.note}` : left > 3000 ? `, about ${Math.ceil(left / 1000)} s left` : "";
    $("progress-text").textContent = `${round.done} of ${round.total} judged${failed}${more}`;
  } else {
    $("progress-text").textContent = failed.slice(2);
  }
  if (!busy && round) {
    round = null;
    say(`All judged: ${counts.good} good, ${counts.bad} not good${failed}.`);
  }
}

const isOutdated = (item) => item.state === "judged" && !isServed(item.answer);
/** Says how many judgements are those of a version that is not served any more. */
function drawOutdated() {
  const old = facts?.model ? [...tally.judges.values()].filter(({ answer }) => !isServed(answer)) : [];
  $("outdated").hidden = old.length === 0;
  if (!old.length) return;
  const count = old.reduce((sum, judge) => sum + judge.count, 0);
  const versions = [...new Set(old.map(({ answer }) => answer.model_version))].sort((a, b) => a - b);
  const [which, own] = versions.length > 1 ? [`versions ${versions.join(" and ")}`, "their own thresholds"] : [`version ${versions[0]}`, "its own threshold"];
  $("outdated-text").textContent = `${count} ${count > 1 ? "were" : "was"} judged by ${which}${moved ? "" : `, at ${own}`}.`;
  $("rejudge").textContent = `Judge again with version ${facts.model.version}`;
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

/** Adds what came in, but for what is here already; gives what it has made of it. */
async function take(came) {
  if (came.photographs.length > ASKED_AT_ONCE) await known(came.photographs);
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
  expected(fresh.length);
  const current = stopper;
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

for (const [input, read] of [["files", intake.chosen], ["folder", intake.ofFolder], ["shot", intake.chosen]]) {
  $(input).addEventListener("change", () => {
    take(read($(input).files));
    $(input).value = "";
  });
}
$("pick").addEventListener("click", () => $("files").click());
$("pick-folder").addEventListener("click", () => $("folder").click());
$("pick-folder").hidden = !("webkitdirectory" in $("folder"));
$("camera").addEventListener("click", () => (camera.live ? camera.open((file) => take(intake.chosen([file]))) : $("shot").click()));

let over = 0;
addEventListener("dragenter", () => $("drop").classList.toggle("over", ++over > 0));
addEventListener("dragleave", () => $("drop").classList.toggle("over", --over > 0));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", async (event) => {
  event.preventDefault();
  over = 0;
  $("drop").classList.remove("over");
  take(await intake.dropped(event.dataTransfer));
});
addEventListener("paste", (event) => event.clipboardData?.files.length && take(intake.chosen(event.clipboardData.files)));

// --- tools ------------------------------------------------------------------------------------------------------------

function setThreshold(value, byUser) {
  threshold = Math.min(1, Math.max(0, value));
  $("threshold").value = threshold;
  if (document.activeElement !== $("threshold-number")) $("threshold-number").value = threshold.toFixed(3);
  const standard = facts?.model?.threshold;
  const isStandard = standard !== undefined && Math.abs(standard - threshold) < 5e-4;
  moved = byUser && !isStandard;
  $("reset").hidden = standard === undefined || isStandard;
  keep("sessionStorage", THRESHOLD, moved ? threshold : null);
  $("threshold-text").textContent = `from a score of ${threshold.toFixed(3)} on, a part is not good`;
  $("default-mark").hidden = standard === undefined;
  if (standard !== undefined) {
    $("default-mark").parentElement.style.setProperty("--default", `${100 * standard}%`);
    $("default-mark").textContent = `default ${standard.toFixed(3)}`;
  }
  const now = `${threshold} ${moved}`;
  if (redrawing || now === drawnAt) return; // what is served is looked up often: nothing moves for it
  drawnAt = now;
  redrawing = true;
  requestAnimationFrame(() => {
    redrawing = false;
    redraw();
  });
}
let redrawing = false;
let drawnAt = "";

$("threshold").addEventListener("input", () => setThreshold($("threshold").valueAsNumber, true));
$("threshold-number").addEventListener("input", () => {
  const value = $("threshold-number").valueAsNumber;
  if (!Number.isNaN(value)) setThreshold(value, true);
});
for (const input of [$("threshold"), $("threshold-number")]) {
  input.addEventListener("change", () => {
    $("threshold-number").value = threshold.toFixed(3);
    requestAnimationFrame(() => { // after the one that judges them at it
      const { good, bad } = tally.kinds;
      say(`Threshold ${threshold.toFixed(3)}: ${good} good, ${bad} not good.`);
    });
  });
}
$("reset").addEventListener("click", () => {
  setThreshold(facts.model.threshold, false);
  $("threshold").focus();
});
$("sort").addEventListener("change", () => {
  keep("sessionStorage", "sort", $("sort").value);
  overview();
});
function setSize() {
  $("cards").style.setProperty("--size", `${$("size").value}px`);
  keep("sessionStorage", "size", $("size").value);
}
$("size").addEventListener("input", setSize);

$("filter").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) choose(button);
});
$("filter").addEventListener("keydown", (event) => {
  const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const buttons = [...$("filter").children].filter((button) => !button.hidden);
  choose(buttons[(buttons.indexOf(event.target.closest("button")) + by + buttons.length) % buttons.length]);
});

function choose(button) {
  filter = button.dataset.kind;
  overview();
  button.focus();
}

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
  unsaved &&= filter !== "all"; // else there are judgements that it does not have
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
});

function halt() {
  stopper.abort();
  stopper = new AbortController();
  return queue.drain();
}
$("stop").addEventListener("click", () => halt().forEach((item) => fail(item, "stopped")));
$("retry").addEventListener("click", () => again(items.filter((item) => item.retriable)));
$("rejudge").addEventListener("click", () => again(items.filter(isOutdated)));
$("clear").addEventListener("click", () => {
  const rest = [...coming];
  coming.clear();
  halt();
  round = null;
  filter = "all";
  takeOut([...items, ...rest]);
  $("pick").focus();
});

// --- taking photographs out -------------------------------------------------------------------------------------------

let out = null; // what was taken out, and the timer after which it is gone

/** What was taken out shortly before comes back with it: who holds Delete down too long takes out many, one by one. */
function takeOut(some) {
  clearTimeout(out?.timer);
  const together = [...(out?.items ?? []), ...some];
  out = { items: together, unsaved: unsaved || out?.unsaved, timer: setTimeout(forget, UNDO_MS) };
  const gone = new Set(some);
  items = items.filter((item) => !gone.has(item));
  const unasked = queue.drain(gone); // they shall not count as some of the line
  if (round) round.total -= unasked.length;
  for (const item of some) tally.discount(item);
  unsaved &&= items.length > 0;
  $("undo-text").textContent = together.length > 1 ? `${together.length} photographs were removed.` : `${some[0].name} was removed.`;
  placeUndo();
  $("undo").hidden = false;
  overview();
}

/** Where it can be reached: while a dialog is open, nothing outside of it can, and what is in one goes when it closes. */
function placeUndo() {
  (document.querySelector("dialog[open]") ?? document.body).append($("undo"));
}
addEventListener("close", placeUndo, true); // this event does not bubble

function forget() {
  clearTimeout(out?.timer);
  out = null;
  $("undo").hidden = true;
}

function undo() {
  const here = new Set([...items, ...coming].map((item) => item.key));
  const last = [...out.items].reverse().filter((item) => !here.has(item.key) && here.add(item.key)); // once, as it was last
  const back = last.sort((a, b) => a.index - b.index);
  items = [...back, ...items].sort((a, b) => a.index - b.index);
  unsaved ||= out.unsaved;
  for (const item of back) {
    tally.count(item);
    draw(item);
  }
  forget();
  const unasked = back.filter((item) => item.state === "waiting");
  if (unasked.length) expected(unasked.length);
  queue.add(unasked);
  overview();
  viewer.draw(); // there are more to go to
  // The button that had the focus is gone.
  if ([document.body, $("undo-do")].includes(document.activeElement)) (document.querySelector("dialog[open] button") ?? back[0]?.part.photo)?.focus();
}
$("undo-do").addEventListener("click", undo);
addEventListener("keydown", (event) => {
  const isUndo = (event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z";
  if (!isUndo || !out || event.target.matches("textarea, input:not([type=range])")) return;
  event.preventDefault();
  undo();
});

function again(some) {
  expected(some.length);
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
    setThreshold(model && !moved ? model.threshold : threshold, moved);
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
const chosen = kept("sessionStorage", THRESHOLD);
setThreshold(Number(chosen ?? threshold), chosen !== null);
views.begin((name) => name === "served" && look());
look();
// Only for who sees it: answers to photographs tell by themselves when another model has come.
setInterval(() => document.visibilityState === "visible" && (!$("served").hidden || !facts?.model || !reachable) && look(), SERVED_EVERY_MS);
