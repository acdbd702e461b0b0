// Which photographs are shown: all, or those of a kind, with how many there are of each.

const group = document.getElementById("filter");
const BY_KEY = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

/** A group of buttons, one of which is chosen. */
export class Filter {
  kind = "all"; // or one of the tally's

  /** @param {() => void} onChoose told when another one was chosen */
  constructor(onChoose) {
    this.onChoose = onChoose;
    group.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) this.#choose(button);
    });
    group.addEventListener("keydown", (event) => {
      const by = BY_KEY[event.key];
      if (!by) return;
      event.preventDefault();
      const buttons = [...group.children].filter((button) => !button.hidden);
      this.#choose(buttons[(buttons.indexOf(event.target.closest("button")) + by + buttons.length) % buttons.length]);
    });
    for (const kind of ["all", "good", "bad", "failed"]) {
      const button = document.createElement("button");
      button.setAttribute("role", "radio");
      button.dataset.kind = kind;
      button.append(document.createElement("span"), document.createElement("b"));
      group.append(button);
    }
  }

  /** Shows all, from the next time on that it is drawn. */
  reset() {
    this.kind = "all";
  }

  /** Whether what is of a kind is shown. */
  takes(kind) {
    return this.kind === "all" || this.kind === kind;
  }

  /**
   * @param {object} counts how many are of each kind
   * @param {string[]} classes the model's, the good one first
   */
  draw(counts, classes) {
    const names = { all: "All", good: classes[0], bad: classes.length === 2 ? classes[1] : "not good", failed: "Failed" };
    for (const button of group.children) {
      const { kind } = button.dataset;
      button.firstChild.textContent = names[kind];
      button.lastChild.textContent = counts[kind];
      button.setAttribute("aria-checked", String(kind === this.kind));
      button.tabIndex = kind === this.kind ? 0 : -1;
      button.hidden = kind === "failed" && !counts.failed && this.kind !== "failed";
    }
  }

  #choose(button) {
    this.kind = button.dataset.kind;
    this.onChoose();
    button.focus();
  }
}
