// How far the judging is: the bar, the words beside it, and what can be done about it.

const SEEN = 4; // so many are judged before it is said how long the others take
const WORTH_SAYING_MS = 3_000;
const at = (id) => document.getElementById(id);
const bar = at("bar");

/** Counts what is to be judged and what is, from one time on that all was judged to the next. */
export class Progress {
  #round = null; // when it began, how many there are, and how many of them are judged

  /** @param {(text: string) => void} onEnd told in words when all are judged */
  constructor(onEnd) {
    this.onEnd = onEnd;
  }

  /** So many more are to be judged. */
  expect(count) {
    this.#round ??= { began: Date.now(), done: 0, total: 0 };
    this.#round.total += count;
  }

  /** So many of them are not, as nobody wants them any more. */
  withdraw(count) {
    if (this.#round) this.#round.total -= count;
  }

  /** One more is judged, or could not be. */
  step() {
    if (this.#round) this.#round.done++;
  }

  /** Nothing is to be said of what was expected. */
  forget() {
    this.#round = null;
  }

  /**
   * @param {object} counts how many are of each kind
   * @param {boolean} busy whether some are still to be judged
   * @param {boolean} retriable whether some of those that failed are worth another try
   * @param {string | undefined} note what one of them waits for
   */
  draw(counts, busy, retriable, note) {
    const failed = counts.failed ? `, ${counts.failed} could not be judged` : "";
    at("progress").hidden = !busy && counts.failed === 0;
    at("stop").hidden = bar.hidden = !busy;
    at("retry").hidden = busy || !retriable;
    at("progress-text").textContent = busy && this.#round ? this.#words(failed, note) : failed.slice(2);
    if (busy || !this.#round) return;
    this.#round = null;
    this.onEnd(`All judged: ${counts.good} good, ${counts.bad} not good${failed}.`);
  }

  #words(failed, note) {
    const { began, done, total } = this.#round;
    bar.max = total;
    bar.value = done;
    const left = done > SEEN ? ((Date.now() - began) / done) * (total - done) : 0;
    const more = note ? `; ${note}` : left > WORTH_SAYING_MS ? `, about ${Math.ceil(left / 1000)} s left` : "";
    return `${done} of ${total} judged${failed}${more}`;
  }
}
