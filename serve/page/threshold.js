// From which score on a part is not good: the slider, the number beside it, and the model's own threshold, marked.

import { keep, kept } from "./kept.js";

const NAME = `threshold of ${location.pathname}`; // each model of a fleet has its own page
const at = (id) => document.getElementById(id);
const slider = at("threshold");
const number = at("threshold-number");
const mark = at("default-mark");

/** Where the user may move it; until then each photograph is judged at the threshold of the model that judged it. */
export class Threshold {
  value = 0.5; // where the slider stands
  moved = false;
  #standard; // the model's; undefined: none is served
  #drawn = "";
  #drawing = false;

  /**
   * @param {() => void} onChange told in a frame in which all are to be judged anew
   * @param {(value: number) => void} onSettled told when the user has let go of it, after that frame
   */
  constructor(onChange, onSettled) {
    this.onChange = onChange;
    slider.addEventListener("input", () => this.#set(slider.valueAsNumber, true));
    number.addEventListener("input", () => {
      if (!Number.isNaN(number.valueAsNumber)) this.#set(number.valueAsNumber, true);
    });
    for (const input of [slider, number]) {
      input.addEventListener("change", () => {
        number.value = this.value.toFixed(3);
        requestAnimationFrame(() => onSettled(this.value)); // after the one that judges them at it
      });
    }
    at("reset").addEventListener("click", () => {
      this.#set(this.#standard, false);
      slider.focus();
    });
  }

  /** Stands where it stood when the page was left. */
  begin() {
    const chosen = kept("sessionStorage", NAME);
    this.#set(Number(chosen ?? this.value), chosen !== null);
  }

  /** @param {number | undefined} standard the served model's; undefined: none is served */
  follow(standard) {
    this.#standard = standard;
    this.#set(standard !== undefined && !this.moved ? standard : this.value, this.moved);
  }

  /** At which threshold an answer is judged. */
  of(answer) {
    return this.moved ? this.value : answer.threshold;
  }

  #set(value, byUser) {
    this.value = Math.min(1, Math.max(0, value));
    const isStandard = this.#standard !== undefined && Math.abs(this.#standard - this.value) < 5e-4;
    this.moved = byUser && !isStandard;
    keep("sessionStorage", NAME, this.moved ? this.value : null);
    this.#draw(isStandard);
    const now = `${this.value} ${this.moved}`;
    if (this.#drawing || now === this.#drawn) return; // what is served is looked up often: nothing moves for it
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#drawn = `${this.value} ${this.moved}`; // it may have moved on since the frame was asked for
      this.onChange();
    });
  }

  #draw(isStandard) {
    const standard = this.#standard;
    slider.value = this.value;
    if (document.activeElement !== number) number.value = this.value.toFixed(3);
    at("threshold-text").textContent = `from a score of ${this.value.toFixed(3)} on, a part is not good`;
    at("reset").hidden = standard === undefined || isStandard;
    mark.hidden = standard === undefined;
    if (standard === undefined) return;
    mark.parentElement.style.setProperty("--default", `${100 * standard}%`);
    mark.textContent = `default ${standard.toFixed(3)}`;
  }
}
