// A photograph's card: what is seen of an item, drawn only while it is near the screen.

import { figure, isGood, labelAt } from "./judgement.js";
import { heatmap } from "./service.js";

const template = document.getElementById("card").content.firstElementChild;
const UNSEEN = "The browser cannot draw this kind of file; the heat-map can be shown.";

/** An item of the list: a file, and all that became of it. */
export class Item {
  constructor(file, index) {
    this.file = file;
    this.name = file.webkitRelativePath || file.name || "photograph.png";
    this.index = index;
    this.state = "waiting"; // waiting, judging, judged, failed
    this.answer = this.error = this.reported = this.note = null;
    this.heat = false;
    this.heatBlob = null;
    this.near = false;
    this.urls = {};
    this.undrawable = false;
    this.card = template.cloneNode(true);
    this.card.item = this;
    this.part = Object.fromEntries(
      ["photo", "name", "label", "score", "said", "heat", "wrong", "again", "version", "placeholder", "verdict", "meter"].map((name) => [name, this.card.querySelector(`.${name}`)]),
    );
    this.image = this.card.querySelector("img");
    this.image.addEventListener("error", () => this.#failedToDraw());
    this.image.addEventListener("load", () => {
      this.image.hidden = false;
    });
    this.part.name.textContent = this.part.name.title = this.name;
    this.part.photo.setAttribute("aria-label", `Enlarge ${this.name}`);
    this.image.alt = this.name;
  }

  #failedToDraw() {
    if (!this.image.getAttribute("src")) return;
    this.undrawable = !this.heat;
    this.image.hidden = true;
    this.part.placeholder.textContent = this.undrawable ? UNSEEN : "The heat-map cannot be drawn.";
  }

  url(kind) {
    const blob = kind === "heat" ? this.heatBlob : this.file;
    return (this.urls[kind] ??= URL.createObjectURL(blob));
  }

  /** Loads the picture when the card comes near the screen, and frees it when it has gone. */
  setNear(near) {
    this.near = near;
    if (!near) {
      this.image.hidden = true;
      this.image.removeAttribute("src");
      this.free();
    }
    this.drawPicture();
  }

  drawPicture() {
    if (!this.near) return;
    const heat = this.heat && this.heatBlob !== null;
    if (!heat && this.undrawable) {
      this.image.hidden = true;
      this.part.placeholder.textContent = UNSEEN;
      return;
    }
    const url = this.url(heat ? "heat" : "plain");
    if (this.image.getAttribute("src") !== url) this.image.src = url;
  }

  free() {
    for (const url of Object.values(this.urls)) URL.revokeObjectURL(url);
    this.urls = {};
  }

  /** Fetches the heat-map if there is none yet; the error is shown on the card. */
  async setHeat(on) {
    this.heat = on;
    this.part.heat.setAttribute("aria-pressed", String(on));
    if (on && !this.heatBlob) {
      this.part.heat.setAttribute("aria-busy", "true");
      try {
        this.heatBlob = await heatmap(this.file);
        this.note = null;
      } catch (error) {
        this.heat = false;
        this.part.heat.setAttribute("aria-pressed", "false");
        this.note = `no heat-map: ${error.message}`;
        this.part.said.textContent = this.note;
      }
      this.part.heat.removeAttribute("aria-busy");
    }
    this.drawPicture();
  }

  /** Shows the state at a threshold; returns whether the part is good (null: not judged). */
  draw(threshold) {
    const { part, answer, card } = this;
    const good = answer ? isGood(answer, threshold) : null;
    card.dataset.state = this.state;
    card.dataset.verdict = good === null ? "" : good ? "good" : "bad";
    const words = { waiting: "waiting", judging: "judging …", failed: "not judged" };
    part.label.textContent = answer ? labelAt(answer, threshold) : words[this.state];
    part.verdict.textContent = good === null ? (this.state === "failed" ? "!" : "") : good ? "✓" : "✕";
    part.score.textContent = answer ? figure(answer.score) : "";
    part.version.textContent = answer ? `v${answer.model_version}` : "";
    part.version.title = answer ? `${answer.model_name} version ${answer.model_version}, ${answer.model_digest}` : "";
    part.heat.hidden = part.wrong.hidden = !answer;
    part.again.hidden = this.state !== "failed";
    if (answer) {
      part.meter.firstChild.style.width = `${100 * answer.score}%`;
      part.meter.lastChild.style.left = `${100 * threshold}%`;
    }
    part.said.textContent = this.#said();
    part.said.classList.toggle("error", this.state === "failed");
    part.wrong.textContent = this.reported ? "Reported ✓" : "This is wrong";
    return good;
  }

  #said() {
    if (this.error) return this.error;
    if (this.note) return this.note;
    if (this.reported) return `reported: it is ${this.reported}`;
    return this.answer && !this.answer.part_found && this.straightened ? "no part was found: the whole photograph was judged" : "";
  }
}
