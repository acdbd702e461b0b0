// A photograph in full size, with its heat-map, and the way to its neighbours.

import { figure, labelAt } from "./judgement.js";

const dialog = document.getElementById("viewer");
const part = (name) => dialog.querySelector(`.${name}`);
const sheet = part("sheet");
const image = sheet.querySelector("img");
const LARGEST = 8; // screen pixels for one of the photograph

export class Viewer {
  #item = null;
  #shown = null; // the file or heat-map that is drawn
  #zoom = null; // screen pixels for one of the photograph; null: as large as it fits
  #dragged = false;

  /**
   * @param {() => Item[]} listed the items as they are listed now
   * @param {(answer: object) => number} thresholdOf the threshold that an answer is judged at
   * @param {{ onWrong: (item: Item) => void, onRemove: (item: Item) => void }} actions
   */
  constructor(listed, thresholdOf, { onWrong, onRemove }) {
    this.listed = listed;
    this.thresholdOf = thresholdOf;
    this.onRemove = onRemove;
    part("close").addEventListener("click", () => dialog.close());
    part("previous").addEventListener("click", () => this.#step(-1));
    part("next").addEventListener("click", () => this.#step(1));
    part("heat").addEventListener("click", () => this.#toggleHeat());
    part("wrong").addEventListener("click", () => onWrong(this.#item));
    part("zoom").addEventListener("click", () => this.#toggleZoom());
    part("remove").addEventListener("click", () => this.#remove());
    dialog.addEventListener("close", () => {
      this.#free();
      this.#item.part.photo.focus();
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    image.addEventListener("error", () => {
      if (!image.getAttribute("src")) return;
      image.hidden = true;
      this.draw();
    });
    this.#listenToPointer();
    const actions = {
      ArrowLeft: () => this.#step(-1),
      ArrowRight: () => this.#step(1),
      Delete: () => this.#remove(),
      h: () => this.#toggleHeat(),
      w: () => part("wrong").offsetParent && part("wrong").click(), // where feedback is off it is not shown
      z: () => this.#toggleZoom(),
      "+": () => this.#zoomBy(1.25),
      "=": () => this.#zoomBy(1.25),
      "-": () => this.#zoomBy(0.8),
    };
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    dialog.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const way = event.shiftKey && ways[event.key];
      const action = way ? () => sheet.scrollBy(way[0] * 80, way[1] * 80) : actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (action) {
        event.preventDefault();
        action();
      }
    });
  }

  open(item) {
    if (!dialog.open) dialog.showModal();
    this.#turnTo(item);
  }

  #turnTo(item) {
    this.#item = item;
    this.#setZoom(null);
    this.draw();
  }

  /** Draws what has become of an item, if that is the one which is looked at. */
  follow(item) {
    if (item === this.#item) this.draw();
  }

  draw() {
    const item = this.#item;
    if (!dialog.open || !item) return;
    const { answer } = item;
    const heat = item.heat && item.heatBlob !== null;
    this.#drawPicture(heat ? item.heatBlob : item.file);
    part("placeholder").textContent = image.hidden ? item.unseen : "";
    image.classList.toggle("heated", heat);
    image.alt = part("name").textContent = item.name;
    part("heat").setAttribute("aria-pressed", String(heat));
    part("heat").setAttribute("aria-busy", item.part.heat.getAttribute("aria-busy") ?? "false");
    part("zoom").disabled = image.hidden;
    part("heat").disabled = part("wrong").disabled = !answer;
    if (document.activeElement.disabled) sheet.focus(); // else no key comes here any more
    part("wrong").firstChild.textContent = `${item.part.wrong.textContent} `;
    dialog.dataset.verdict = item.card.dataset.verdict;
    const all = this.listed();
    const facts = [`${all.indexOf(item) + 1} of ${all.length}`];
    if (answer) {
      const threshold = this.thresholdOf(answer);
      const shares = answer.probabilities.map(([name, share]) => `${name} ${figure(share)}`).join(", ");
      facts.push(labelAt(answer, threshold), `score ${figure(answer.score)}`, `threshold ${figure(threshold)}`, shares, `${answer.model_name} version ${answer.model_version}`);
    } else if (!item.error) {
      facts.push("not judged yet");
    }
    part("facts").textContent = [...facts, item.part.said.textContent].filter(Boolean).join(" · ");
    part("heat-words").hidden = !heat;
  }

  #drawPicture(blob) {
    if (blob === this.#shown) return;
    this.#free();
    this.#shown = blob;
    image.hidden = false;
    image.src = URL.createObjectURL(blob);
  }

  #free() {
    if (image.getAttribute("src")) URL.revokeObjectURL(image.src);
    image.removeAttribute("src");
    this.#shown = null;
  }

  async #toggleHeat() {
    const item = this.#item;
    if (item.answer) await item.setHeat(!item.heat);
  }

  #step(by) {
    const items = this.listed();
    const next = items[(items.indexOf(this.#item) + by + items.length) % items.length];
    if (next) this.#turnTo(next);
  }

  #remove() {
    const gone = this.#item;
    const items = this.listed();
    const place = items.indexOf(gone);
    const next = items[place + 1] ?? items[place - 1];
    if (next) this.#turnTo(next);
    else dialog.close();
    this.onRemove(gone);
    if (next) this.draw(); // one fewer
  }

  // --- as large as it fits, or larger ---

  get #fitting() {
    return Math.min(1, sheet.clientWidth / image.naturalWidth, sheet.clientHeight / image.naturalHeight);
  }

  /** Sets the scale, and keeps what lies at a point of the screen there; without one, the middle. */
  #setZoom(zoom, at = null) {
    const area = sheet.getBoundingClientRect();
    const [x, y] = at ?? [area.left + area.width / 2, area.top + area.height / 2];
    const before = image.getBoundingClientRect();
    this.#zoom = zoom;
    sheet.classList.toggle("zoomed", zoom !== null);
    image.style.width = zoom === null ? "" : `${image.naturalWidth * zoom}px`;
    part("zoom").setAttribute("aria-pressed", String(zoom !== null));
    if (zoom === null || !before.width) return;
    const after = image.getBoundingClientRect();
    sheet.scrollLeft += after.left - x + ((x - before.left) / before.width) * after.width;
    sheet.scrollTop += after.top - y + ((y - before.top) / before.height) * after.height;
  }

  #toggleZoom(at) {
    if (!image.naturalWidth) return;
    // One that is small enough to be shown as it is can still be looked at more closely.
    this.#setZoom(this.#zoom === null ? (this.#fitting < 1 ? 1 : 2) : null, at);
  }

  #zoomBy(factor, at) {
    if (!image.naturalWidth) return;
    const zoom = Math.min(LARGEST, (this.#zoom ?? this.#fitting) * factor);
    this.#setZoom(zoom > this.#fitting ? zoom : null, at);
  }

  #listenToPointer() {
    image.addEventListener("click", (event) => this.#dragged || this.#toggleZoom([event.clientX, event.clientY]));
    image.addEventListener("dragstart", (event) => event.preventDefault());
    image.addEventListener("pointerdown", () => {
      this.#dragged = false;
    });
    image.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "mouse" || event.buttons !== 1) return; // a finger moves it by itself
      if (Math.abs(event.movementX) + Math.abs(event.movementY) > 1) this.#dragged = true;
      sheet.scrollBy(-event.movementX, -event.movementY);
    });
    sheet.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.#zoomBy(Math.exp(-event.deltaY / 500), [event.clientX, event.clientY]);
    }, { passive: false });
  }
}
