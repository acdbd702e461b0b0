// What was taken out shortly before, and the bar by which it comes back.

const UNDO_MS = 10_000;
const bar = document.getElementById("undo");
const undo = document.getElementById("undo-do");

/** Keeps what was taken out for a while; who holds Delete down too long takes out many, one by one, and all come back. */
export class Removed {
  #out = null; // the items, whether some were unsaved, and the timer after which they are gone

  /**
   * @param {(items: Item[], unsaved: boolean) => Item[]} onUndo takes them in again; gives those that were not there, of
   *   which the first one gets the focus
   */
  constructor(onUndo) {
    this.onUndo = onUndo;
    undo.addEventListener("click", () => this.#bringBack());
    addEventListener("close", () => this.#place(), true); // this event does not bubble
    addEventListener("keydown", (event) => {
      const isUndo = (event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z";
      if (!isUndo || !this.#out || event.target.matches("textarea, input:not([type=range])")) return;
      event.preventDefault();
      this.#bringBack();
    });
  }

  /**
   * @param {Item[]} items what is taken out now
   * @param {boolean} unsaved whether there were judgements that no CSV file has
   */
  add(items, unsaved) {
    clearTimeout(this.#out?.timer);
    const together = [...(this.#out?.items ?? []), ...items];
    this.#out = { items: together, unsaved: unsaved || this.#out?.unsaved, timer: setTimeout(() => this.#forget(), UNDO_MS) };
    document.getElementById("undo-text").textContent = together.length > 1 ? `${together.length} photographs were removed.` : `${together[0].name} was removed.`;
    this.#place();
    bar.hidden = false;
  }

  /** Where it can be reached: while a dialog is open, nothing outside of it can, and what is in one goes when it closes. */
  #place() {
    (document.querySelector("dialog[open]") ?? document.body).append(bar);
  }

  #bringBack() {
    const { items, unsaved } = this.#out;
    this.#forget();
    const [first] = this.onUndo(items, unsaved);
    // The button that had the focus is gone.
    if ([document.body, undo].includes(document.activeElement)) (document.querySelector("dialog[open] button") ?? first?.part.photo)?.focus();
  }

  #forget() {
    clearTimeout(this.#out?.timer);
    this.#out = null;
    bar.hidden = true;
  }
}
