// A photograph's card: what is seen of an item, drawn only while it is near the screen.

import { figure, isGood, labelAt } from "./judgement.js";
import { heatmap } from "./service.js";
import * as thumbnail from "./thumbnail.js";

/** Says it, unless it is said already: what is written anew is laid out anew. */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const template = document.getElementById("card").content.firstElementChild;

/** An item of the list: a file, and all that became of it. */
export class Item {
  /**
   * @param {{ file: File, path: string }} photograph
   * @param {number} index how many were added before
   * @param {(item: Item) => void} onChange told when there is something else to draw
   */
  constructor({ file, path }, index, onChange) {
    this.file = file;
    this.name = path;
    this.index = index;
    this.changed = () => onChange(this);
    this.state = "waiting"; // waiting, judging, judged, failed
    this.answer = this.error = this.note = null;
    this.at = null; // when it was judged
    this.straightened = null; // whether the model that judged it looks for the part; null: not known yet
    this.passes = true; // whether, where it could not be judged, it is worth another try
    this.retried = false; // whether it had that without anybody asking
    this.report = null; // what a person said: { label, said, threshold, by }
    this.checked = false; // whether it was part of a spot check
    this.heat = false;
    this.heatBlob = null;
    this.near = false;
    this.urls = new Map(); // what is drawn → its address
    this.waits = false; // whether its small picture is being made
    this.undrawable = false;
    this.card = template.cloneNode(true);
    this.card.item = this;
    this.part = Object.fromEntries(
      ["photo", "name", "label", "score", "said", "heat", "wrong", "again", "remove", "version", "placeholder", "verdict", "meter"].map((name) => [name, this.card.querySelector(`.${name}`)]),
    );
    this.image = this.card.querySelector("img");
    this.image.addEventListener("error", () => this.#failedToDraw());
    this.image.addEventListener("load", () => {
      this.image.hidden = false;
    });
    this.part.name.textContent = this.part.name.title = this.name;
    // Buttons of a kind are told apart by whose they are.
    for (const [name, does] of Object.entries({ photo: "Enlarge", heat: "Heat-map of", again: "Try again:", remove: "Remove" })) {
      this.part[name].setAttribute("aria-label", `${does} ${this.name}`);
    }
    this.image.alt = this.name;
  }

  /** Takes the service's answer; the heat-map of an older one goes with that. */
  take(answer) {
    this.#free(this.heatBlob);
    Object.assign(this, { answer, at: new Date(), state: "judged", error: null, note: null, heatBlob: null, checked: false });
    this.drawPicture();
    if (this.heat) this.setHeat(true);
  }

  #failedToDraw() {
    if (!this.image.getAttribute("src")) return;
    this.undrawable = !this.image.classList.contains("heated");
    this.image.hidden = true;
    this.part.placeholder.textContent = this.undrawable ? this.unseen : "The heat-map cannot be drawn.";
  }

  get retriable() {
    return this.state === "failed" && this.passes;
  }

  /** Why there is no picture of it, and whether there will be one. */
  get unseen() {
    if (this.state === "failed" && !this.passes) return "The browser cannot draw this file, and as it cannot be judged, there is no heat-map of it either.";
    return `The browser cannot draw this kind of file; ${this.answer ? "" : "once it is judged, "}its heat-map can be shown.`;
  }

  /** Loads the picture, or this one, when the card comes near the screen, and frees it when it has gone. */
  setNear(near, plain) {
    this.near = near;
    if (!near) {
      this.image.hidden = true;
      this.image.removeAttribute("src");
      for (const blob of this.urls.keys()) this.#free(blob);
    }
    this.drawPicture(plain);
  }

  /** @param {Blob | undefined} plain what is drawn where it is not the heat-map; undefined: it is to be made */
  drawPicture(plain = thumbnail.found(this.file)) {
    if (!this.near) return;
    const heat = this.heat && this.heatBlob !== null;
    if (!heat && this.undrawable) {
      this.image.hidden = true;
      return;
    }
    const blob = heat ? this.heatBlob : plain;
    if (!blob) {
      this.#makeSmall();
      return;
    }
    if (!this.urls.has(blob)) this.urls.set(blob, URL.createObjectURL(blob));
    const url = this.urls.get(blob);
    if (this.image.getAttribute("src") !== url) this.image.src = url;
    this.image.classList.toggle("heated", heat);
  }

  #makeSmall() {
    if (this.waits) return;
    this.waits = true;
    thumbnail.make(this.file, () => this.near, () => {
      this.waits = false;
      this.drawPicture();
    });
  }

  #free(blob) {
    URL.revokeObjectURL(this.urls.get(blob));
    this.urls.delete(blob);
  }

  /** The heat-map, asked for if there is none yet. */
  async heatmap(onWait) {
    if (this.heatBlob) return this.heatBlob;
    const { answer } = this;
    const found = await heatmap(this.file, onWait);
    if (answer === this.answer) this.heatBlob = found; // else it was judged again meanwhile
    return found;
  }

  /** Shows the heat-map or takes it off; the error is shown on the card. */
  async setHeat(on) {
    this.heat = on;
    if (on && !this.heatBlob) {
      const onWait = (seconds, reason) => this.#waits(`${reason}; the heat-map is asked for again in ${Math.round(seconds)} s`);
      this.part.heat.setAttribute("aria-busy", "true");
      this.changed();
      try {
        await this.heatmap(onWait);
        this.note = null;
      } catch (error) {
        this.heat = false;
        this.note = `no heat-map: ${error.message}`;
      }
      this.part.heat.removeAttribute("aria-busy");
    }
    this.drawPicture();
    this.changed();
  }

  #waits(note) {
    this.note = note;
    this.changed();
  }

  /** Shows the state at a threshold; returns whether the part is good (null: not judged). */
  draw(threshold) {
    const { part, answer, card } = this;
    part.heat.setAttribute("aria-pressed", String(this.heat));
    const good = answer ? isGood(answer, threshold) : null;
    card.dataset.state = this.state;
    card.dataset.verdict = good === null ? "" : good ? "good" : "bad";
    const words = { waiting: "waiting", judging: "judging …", failed: "not judged" };
    write(part.label, answer ? labelAt(answer, threshold) : words[this.state]);
    write(part.verdict, good === null ? (this.state === "failed" ? "!" : "") : good ? "✓" : "✕");
    write(part.score, answer ? figure(answer.score) : "");
    write(part.version, answer ? `v${answer.model_version}` : "");
    part.version.title = answer ? `${answer.model_name} version ${answer.model_version}, ${answer.model_digest}` : "";
    part.heat.hidden = part.wrong.hidden = !answer;
    if (this.undrawable) part.placeholder.textContent = this.unseen;
    part.again.hidden = !this.retriable;
    if (answer) {
      part.meter.firstChild.style.width = `${100 * answer.score}%`;
      part.meter.lastChild.style.left = `${100 * threshold}%`;
    }
    write(part.said, this.#said());
    part.said.classList.toggle("error", this.state === "failed");
    write(part.wrong, this.report ? "Reported ✓" : "This is wrong");
    part.wrong.setAttribute("aria-label", `${part.wrong.textContent}: ${this.name}`);
    return good;
  }

  #said() {
    if (this.error) return this.error;
    if (this.note) return this.note;
    if (this.report) return `reported: it is ${this.report.label}`;
    return this.answer && !this.answer.part_found && this.straightened ? "no part was found: the whole photograph was judged" : "";
  }
}
