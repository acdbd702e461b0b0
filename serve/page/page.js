// The page: takes photographs in, has them judged, and shows what came of it.

import * as camera from "./camera.js";
import { Item } from "./card.js";
import { csv, figure, isGood, sorter } from "./judgement.js";
import { ask } from "./report.js";
import * as servedView from "./served.js";
import { figures, judge, Queue, served, windows } from "./service.js";
import { Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const SUFFIX = /\.(png|jpe?g|bmp|tiff?)$/i;
const BATCH = 60; // cards made at once, so that thousands of files do not freeze the page
const BARS = 60;
const SERVED_EVERY_MS = 15_000;
const FOLLOW_AFTER_MS = 3_000;

let items = [];
let filter = "all";
let facts = null;
let moved = false; // whether the user chose the threshold; else it follows the model's
let threshold = 0.5;
let added = 0;
let stopper = new AbortController();
let round = null; // since the queue was empty last: when it began, how many there are

// --- one photograph ---------------------------------------------------------------------------------------------------

const queue = new Queue(async (item) => {
  item.state = "judging";
  item.error = item.note = null;
  item.draw(threshold);
  if (facts && item.file.size > facts.max_bytes) {
    fail(item, `the file has ${(item.file.size / 1e6).toFixed(1)} MB; at most ${(facts.max_bytes / 1e6).toFixed(1)} are accepted`);
    return;
  }
  const signal = stopper.signal;
  try {
    const answer = await judge(item.file, signal, (seconds, reason) => {
      item.note = `${reason}; again in ${Math.round(seconds)} s`;
      item.draw(threshold);
    });
    item.note = null;
    item.answer = answer;
    item.straightened = facts?.model?.straightened ?? false;
    item.state = "judged";
    follow(answer);
    changed(item);
  } catch (error) {
    fail(item, error.name === "AbortError" ? "stopped" : error.message);
  }
});

function fail(item, reason) {
  item.state = "failed";
  item.note = null;
  item.error = reason;
  changed(item);
}

let following = null;
/** Another version answers: the page's facts are old. While replicas change, two answer in turns; now and then is enough. */
function follow(answer) {
  if ([facts?.model?.sha256, facts?.trial?.sha256].includes(answer.model_digest.slice("sha256:".length))) return;
  following ??= setTimeout(() => {
    following = null;
    look();
  }, Math.max(0, lookedAt + FOLLOW_AFTER_MS - Date.now()));
}

function changed(item) {
  if (!items.includes(item)) return; // the list was cleared meanwhile
  item.draw(threshold);
  if (round) round.done++;
  soon();
}

// --- all of them ------------------------------------------------------------------------------------------------------

const observer = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      target.item.setNear(isIntersecting);
      if (isIntersecting) heatIfWanted(target.item);
    }
  },
  { rootMargin: "400px" },
);

const kindOf = (item) => (item.answer ? (isGood(item.answer, threshold) ? "good" : "bad") : item.state === "failed" ? "failed" : "waiting");
const visible = (item) => filter === "all" || filter === kindOf(item);
const listed = () => [...items].sort(sorter($("sort").value, threshold)).filter(visible);

let scheduled = false;
/** Draws lists and counts with the next frame, however often it is asked. */
function soon() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    overview();
  });
}

function overview() {
  const counts = { all: items.length, good: 0, bad: 0, failed: 0, waiting: 0 };
  for (const item of items) counts[kindOf(item)]++;
  drawFilter(counts);
  drawHistogram();
  drawProgress(counts);
  arrange();
  $("work").hidden = items.length === 0;
  $("drop").classList.toggle("small", items.length > 0);
  $("nothing").hidden = items.length === 0 || items.some(visible);
  $("export").disabled = counts.good + counts.bad + counts.failed === 0;
}

/** Puts the cards in order; only if it has changed, because moving a card loses its focus. */
function arrange() {
  const order = [...items].sort(sorter($("sort").value, threshold));
  const cards = $("cards");
  for (const item of order) item.card.hidden = !visible(item);
  if (order.length === cards.children.length && order.every((item, place) => cards.children[place] === item.card)) return;
  const focused = document.activeElement;
  cards.append(...order.map((item) => item.card));
  if (cards.contains(focused)) focused.focus({ preventScroll: true });
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

function drawHistogram() {
  const counts = new Array(BARS).fill(0);
  for (const { answer } of items) if (answer) counts[Math.min(BARS - 1, Math.floor(answer.score * BARS))]++;
  const highest = Math.max(1, ...counts);
  const bars = $("histogram");
  while (bars.children.length < BARS) {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    bar.setAttribute("x", bars.children.length + 0.1);
    bar.setAttribute("width", 0.8);
    bars.append(bar);
  }
  counts.forEach((count, place) => {
    // The root, because most scores are near 0 or 1 and the few between are what matters.
    const height = count ? Math.max(1.5, 20 * Math.sqrt(count / highest)) : 0;
    const bar = bars.children[place];
    bar.setAttribute("y", 20 - height);
    bar.setAttribute("height", height);
    bar.setAttribute("class", (place + 0.5) / BARS < threshold ? "good" : "bad");
  });
}

function drawProgress(counts) {
  const busy = queue.busy > 0;
  $("progress").hidden = !busy && counts.failed === 0;
  $("stop").hidden = $("bar").hidden = !busy;
  $("retry").hidden = busy || counts.failed === 0;
  const failed = counts.failed ? `, ${counts.failed} could not be judged` : "";
  if (busy && round) {
    $("bar").max = round.total;
    $("bar").value = round.done;
    const left = round.done > 4 ? ((Date.now() - round.began) / round.done) * (round.total - round.done) : 0;
    $("progress-text").textContent = `${round.done} of ${round.total} judged${failed}${left > 3000 ? `, about ${Math.ceil(left / 1000)} s left` : ""}`;
  } else {
    $("progress-text").textContent = failed.slice(2);
  }
  if (!busy && round) {
    round = null;
    say(`All judged: ${counts.good} good, ${counts.bad} not good${failed}.`);
  }
}

function say(text) {
  $("live").textContent = text;
}

function redraw() {
  for (const item of items) item.draw(threshold);
  overview();
}

// --- taking photographs in --------------------------------------------------------------------------------------------

async function take(files) {
  const fresh = [...files].map((file) => new Item(file, added++));
  if (!fresh.length) return;
  say(`${fresh.length} photographs are being judged.`);
  if (!round) round = { began: Date.now(), done: 0, total: 0 };
  round.total += fresh.length;
  const current = stopper;
  const list = items;
  for (let start = 0; start < fresh.length && items === list; start += BATCH) { // else the list was cleared meanwhile
    const batch = fresh.slice(start, start + BATCH);
    items.push(...batch);
    for (const item of batch) {
      item.draw(threshold);
      observer.observe(item.card);
    }
    $("cards").append(...batch.map((item) => item.card));
    if (stopper === current) queue.add(batch);
    else for (const item of batch) fail(item, "stopped");
    overview();
    await new Promise(requestAnimationFrame);
  }
}

/** The files of what was dropped, those in folders too; what cannot be read is put into `unreadable`. */
async function dropped(transfer, unreadable) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  return (await Promise.all(entries.map((entry) => filesOf(entry, unreadable, true)))).flat();
}

async function filesOf(entry, unreadable, chosen = false) {
  const found = [];
  try {
    if (entry.isFile) {
      if (!chosen && !SUFFIX.test(entry.name)) return [];
      return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) break;
      found.push(...some);
    }
  } catch {
    unreadable.push(entry.name); // one of them must not keep the others out
  }
  return (await Promise.all(found.map((inner) => filesOf(inner, unreadable)))).flat();
}

function picker(button, input, wanted = () => true) {
  $(button).addEventListener("click", () => $(input).click());
  $(input).addEventListener("change", () => {
    take([...$(input).files].filter(wanted));
    $(input).value = "";
  });
}

picker("pick", "files");
picker("pick-folder", "folder", (file) => SUFFIX.test(file.name));
$("pick-folder").hidden = !("webkitdirectory" in $("folder"));
$("shot").addEventListener("change", () => {
  take($("shot").files);
  $("shot").value = "";
});
$("camera").addEventListener("click", () => (camera.live ? camera.open((file) => take([file])) : $("shot").click()));

let over = 0;
addEventListener("dragenter", () => $("drop").classList.toggle("over", ++over > 0));
addEventListener("dragleave", () => $("drop").classList.toggle("over", --over > 0));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", async (event) => {
  event.preventDefault();
  over = 0;
  $("drop").classList.remove("over");
  const unreadable = [];
  const files = await dropped(event.dataTransfer, unreadable);
  const more = unreadable.length > 1 ? ` and ${unreadable.length - 1} more` : "";
  $("unreadable").hidden = !unreadable.length;
  $("unreadable").textContent = `${unreadable.length} of what was dropped could not be read: ${unreadable[0]}${more}.`;
  take(files);
});
addEventListener("paste", (event) => take(event.clipboardData?.files ?? []));

// --- tools ------------------------------------------------------------------------------------------------------------

function setThreshold(value, byUser) {
  threshold = Math.min(1, Math.max(0, value));
  moved = byUser;
  $("threshold").value = threshold;
  if (document.activeElement !== $("threshold-number")) $("threshold-number").value = threshold.toFixed(3);
  const standard = facts?.model?.threshold;
  $("reset").hidden = standard === undefined || Math.abs(standard - threshold) < 5e-4;
  $("threshold-text").textContent = `from a score of ${figure(threshold)} on, a part is not good`;
  if (standard !== undefined) {
    $("default-mark").hidden = false;
    $("default-mark").style.left = `${100 * standard}%`;
    $("default-mark").textContent = `default ${standard.toFixed(3)}`;
  } else {
    $("default-mark").hidden = true;
  }
  if (redrawing) return;
  redrawing = true;
  requestAnimationFrame(() => {
    redrawing = false;
    redraw();
  });
}
let redrawing = false;

$("threshold").addEventListener("input", () => setThreshold($("threshold").valueAsNumber, true));
$("threshold-number").addEventListener("input", () => {
  const value = $("threshold-number").valueAsNumber;
  if (!Number.isNaN(value)) setThreshold(value, true);
});
$("reset").addEventListener("click", () => {
  setThreshold(facts.model.threshold, false);
  $("threshold").focus();
});
$("sort").addEventListener("change", soon);
$("size").addEventListener("input", () => $("cards").style.setProperty("--size", `${$("size").value}px`));

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
  for (const item of listed()) {
    if (!on && item.heat) item.setHeat(false);
    else if (on && item.near) heatIfWanted(item);
  }
});

$("export").addEventListener("click", () => {
  const url = URL.createObjectURL(new Blob([csv(listed(), threshold)], { type: "text/csv;charset=utf-8" }));
  const link = Object.assign(document.createElement("a"), { href: url, download: "mergeline.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
});

function halt() {
  stopper.abort();
  stopper = new AbortController();
  return queue.drain();
}
$("stop").addEventListener("click", () => halt().forEach((item) => fail(item, "stopped")));
$("retry").addEventListener("click", () => again(items.filter((item) => item.state === "failed")));
$("clear").addEventListener("click", () => {
  halt();
  round = null;
  for (const item of items) {
    observer.unobserve(item.card);
    item.free();
  }
  items = [];
  $("cards").replaceChildren();
  filter = "all";
  overview();
  $("pick").focus();
});

function again(some) {
  if (!round) round = { began: Date.now(), done: 0, total: 0 };
  round.total += some.length;
  for (const item of some) Object.assign(item, { state: "waiting", error: null });
  queue.add(some);
  redraw();
}

const wrong = (item) => ask(item, threshold, () => {
  item.draw(threshold);
  say(`Reported: ${item.name} is ${item.reported}. Thank you.`);
  viewer.draw();
});
const viewer = new Viewer(listed, () => threshold, wrong);
$("cards").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const item = button.closest(".card").item;
  if (button.classList.contains("photo")) viewer.open(item);
  if (button.classList.contains("heat")) item.setHeat(!item.heat);
  if (button.classList.contains("wrong")) wrong(item);
  if (button.classList.contains("again")) again([item]);
});

// --- what is served ---------------------------------------------------------------------------------------------------

let looking = false;
let lookedAt = 0;
let lately = null;
let drift = null;
async function look() {
  if (looking) return;
  looking = true;
  lookedAt = Date.now();
  try {
    facts = await served();
    const model = facts.model;
    $("model").textContent = model ? `${model.name} · v${model.version}` : "no model";
    $("notice").hidden = model !== null;
    $("notice").textContent = model ? "" : `No model is served${facts.load_error ? `: ${facts.load_error}` : " yet"}.`;
    $("formats").textContent = `PNG, JPEG, BMP or TIFF, up to ${(facts.max_bytes / 1e6).toFixed(0)} MB each; or paste one`;
    document.body.classList.toggle("no-feedback", !facts.feedback);
    for (const item of items) item.straightened = model?.straightened ?? false;
    if (model && !moved) setThreshold(model.threshold, false);
    else setThreshold(threshold, moved);
    servedView.draw(facts, lately, drift);
    if (!$("served").hidden) {
      [lately, drift] = await Promise.all([figures(), windows()]);
      servedView.draw(facts, lately, drift);
    }
  } catch (error) {
    $("model").textContent = "not reachable";
    servedView.drawError(error);
  } finally {
    looking = false;
  }
}

function show(name) {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (name === "served") look();
}
const shownByHash = () => show(location.hash === "#served" ? "served" : "inspect");
// Not by setting location.hash: that scrolls to the panel and, a moment later, takes the focus from the tab.
function go(name) {
  if (location.hash !== `#${name}`) history.pushState(null, "", `#${name}`);
  show(name);
}
addEventListener("hashchange", shownByHash);
for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => go(tab.getAttribute("aria-controls")));
  tab.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = [...document.querySelectorAll("[role=tab]")].find((one) => one !== tab);
    other.click();
    other.focus();
  });
}
$("model").addEventListener("click", () => go("served"));

$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("mergeline-theme", root.dataset.theme);
  } catch {
    // forbidden: it lasts until the page is left
  }
});

addEventListener("beforeunload", (event) => {
  if (queue.busy) event.preventDefault();
});
setThreshold(threshold, false);
shownByHash();
look();
// Only for who sees it: answers to photographs tell by themselves when another model has come.
setInterval(() => document.visibilityState === "visible" && (!$("served").hidden || !facts?.model) && look(), SERVED_EVERY_MS);
