// The spot check: some photographs, chosen by chance, are called right or wrong, so that the live accuracy is known.

import { figure } from "./judgement.js";
import { tell } from "./report.js";

const AT_ONCE = 10;

const dialog = document.getElementById("spot");
const at = (name) => document.getElementById(`spot-${name}`);
const image = dialog.querySelector("img");

let items = [];
let place = 0;
let counts = { right: 0, wrong: 0 };
let shown = null; // the file or heat-map that is drawn
let sending = null; // the check whose answer is on its way

/** Asks about some of the items that were not asked about yet, whatever they were judged and wherever the slider is. */
export function begin(judged) {
  const left = judged.filter((item) => !item.checked);
  for (let last = left.length - 1; last > 0; last--) {
    const other = Math.floor(Math.random() * (last + 1));
    [left[last], left[other]] = [left[other], left[last]];
  }
  items = left.slice(0, AT_ONCE);
  place = 0;
  counts = { right: 0, wrong: 0 };
  dialog.showModal();
  draw();
}

function draw() {
  const item = items[place];
  const over = item === undefined;
  at("error").hidden = true;
  at("answers").hidden = at("skip").hidden = image.hidden = over;
  at("name").textContent = over ? "" : item.name;
  dialog.dataset.verdict = over ? "" : item.answer.score < item.answer.threshold ? "good" : "bad";
  if (over) {
    at("title").textContent = items.length ? `${counts.right} right, ${counts.wrong} wrong. Thank you.` : "All photographs were checked already.";
    at("close").focus();
    return;
  }
  const { label, score, probabilities } = item.answer;
  const others = probabilities.map(([name]) => name).filter((name) => name !== label);
  at("title").textContent = `${place + 1} of ${items.length}: ${label}, score ${figure(score)}. Is that right?`;
  drawPicture(item.file);
  at("answers").replaceChildren(
    button("Right", "R", label),
    ...others.map((name, number) => (others.length === 1 ? button(`Wrong: it is ${name}`, "W", name) : button(`It is ${name}`, String(number + 1), name))),
  );
  at("answers").firstChild.focus();
}

function drawPicture(blob) {
  URL.revokeObjectURL(image.src);
  shown = blob;
  image.hidden = false;
  image.src = URL.createObjectURL(blob);
  at("placeholder").textContent = "";
}

/** What the browser cannot draw, the service draws: with its heat-map, as there is no other picture to be had. */
async function drawHeated(item) {
  const say = (text) => {
    if (item === items[place]) at("placeholder").textContent = `The browser cannot draw this kind of file${text}`;
  };
  say("; its heat-map is asked for …");
  try {
    const heated = await item.heatmap((seconds, reason) => say(`; its heat-map is asked for again: ${reason}`));
    if (item === items[place]) drawPicture(heated);
  } catch (error) {
    say(`, and there is no heat-map: ${error.message}`);
  }
}

function button(text, key, label) {
  const made = document.createElement("button");
  made.append(`${text} `, Object.assign(document.createElement("kbd"), { textContent: key }));
  made.dataset.key = key.toLowerCase();
  made.addEventListener("click", () => answer(label));
  return made;
}

async function answer(label) {
  if (sending === items) return;
  const mine = (sending = items);
  const item = items[place];
  const { label: said, threshold } = item.answer;
  at("error").hidden = true;
  const say = (text) => {
    if (mine !== items) return;
    at("error").textContent = text;
    at("error").hidden = false;
  };
  try {
    await tell(item, item.answer, { label, said, threshold, sampled: true }, (seconds, reason) => say(`${reason}; trying again …`));
    item.checked = true;
    if (mine !== items) return;
    counts[label === said ? "right" : "wrong"]++;
    place++;
    draw();
  } catch (error) {
    say(`It was not kept: ${error.message}`);
  } finally {
    if (sending === mine) sending = null;
  }
}

function skip() {
  if (sending === items) return;
  place++;
  draw();
}

image.addEventListener("error", () => {
  const item = items[place];
  if (!image.getAttribute("src") || !item) return;
  image.hidden = true;
  if (shown === item.file) drawHeated(item);
  else at("placeholder").textContent = "The heat-map cannot be drawn.";
});
at("skip").addEventListener("click", skip);
at("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  items = [];
  URL.revokeObjectURL(image.src);
  image.removeAttribute("src");
});
dialog.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || at("answers").hidden) return;
  const key = event.key.toLowerCase();
  const meant = key === "s" ? at("skip") : [...at("answers").children].find((one) => one.dataset.key === key);
  if (meant) {
    event.preventDefault();
    meant.click();
  }
});
