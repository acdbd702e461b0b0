// A photograph in full size, with its heat-map, and the way to its neighbours.

import { figure, labelAt } from "./judgement.js";

const dialog = document.getElementById("viewer");
const part = (name) => dialog.querySelector(`.${name}`);
const image = dialog.querySelector("img");

export class Viewer {
  #item = null;
  #urls = [];

  /**
   * @param {() => Item[]} shown the items as they are listed now
   * @param {() => number} threshold
   * @param {(item: Item) => void} onWrong
   */
  constructor(shown, threshold, onWrong) {
    this.shown = shown;
    this.threshold = threshold;
    part("close").addEventListener("click", () => dialog.close());
    part("previous").addEventListener("click", () => this.#step(-1));
    part("next").addEventListener("click", () => this.#step(1));
    part("heat").addEventListener("click", () => this.#toggleHeat());
    part("wrong").addEventListener("click", () => onWrong(this.#item));
    dialog.addEventListener("close", () => {
      this.#free();
      this.#item?.part.photo.focus();
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    image.addEventListener("error", () => {
      if (!image.getAttribute("src")) return;
      image.hidden = true;
      part("placeholder").textContent = "The browser cannot draw this kind of file; the heat-map can be shown.";
    });
    dialog.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const actions = { ArrowLeft: () => this.#step(-1), ArrowRight: () => this.#step(1), h: () => this.#toggleHeat(), w: () => part("wrong").offsetParent && part("wrong").click() }; // where feedback is off it is not shown
      const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (action) {
        event.preventDefault();
        action();
      }
    });
  }

  open(item) {
    this.#item = item;
    if (!dialog.open) dialog.showModal();
    this.draw();
  }

  draw() {
    const item = this.#item;
    if (!dialog.open || !item) return;
    this.#free();
    const heat = item.heat && item.heatBlob !== null;
    const url = URL.createObjectURL(heat ? item.heatBlob : item.file);
    this.#urls.push(url);
    image.hidden = false;
    image.src = url;
    image.alt = item.name;
    part("placeholder").textContent = "";
    part("name").textContent = item.name;
    part("heat").setAttribute("aria-pressed", String(heat));
    part("heat").disabled = part("wrong").disabled = !item.answer;
    dialog.dataset.verdict = item.card.dataset.verdict;
    const answer = item.answer;
    part("facts").textContent = answer
      ? `${labelAt(answer, this.threshold())} · score ${figure(answer.score)} · threshold ${figure(this.threshold())} · ` +
        `${Object.entries(answer.probabilities).map(([name, share]) => `${name} ${figure(share)}`).join(", ")} · ${answer.model_name} version ${answer.model_version}`
      : (item.error ?? "not judged yet");
  }

  #free() {
    image.removeAttribute("src");
    for (const url of this.#urls.splice(0)) URL.revokeObjectURL(url);
  }

  async #toggleHeat() {
    const item = this.#item;
    if (!item.answer) return;
    await item.setHeat(!item.heat);
    if (item === this.#item) this.draw();
  }

  #step(by) {
    const items = this.shown();
    const place = items.indexOf(this.#item);
    const next = items[(place + by + items.length) % items.length];
    if (next) {
      this.#item = next;
      this.draw();
    }
  }
}
