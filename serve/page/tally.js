// What there is of what among the items, kept up with each change: so an answer costs the same, whatever their number.

export const BARS = 60; // into which the scores are counted

/** Counts items, each as it was when it was counted last. */
export class Tally {
  kinds = { all: 0, good: 0, bad: 0, failed: 0, waiting: 0 };
  bars = new Array(BARS).fill(0);
  heated = 0;
  retriable = 0;
  judges = new Map(); // digest of a model → how many are judged by it, and its version
  #counted = new Map();

  /** @param {(item: Item) => string} kindOf which of `kinds` an item is of */
  constructor(kindOf) {
    this.kindOf = kindOf;
  }

  has(item) {
    return this.#counted.has(item);
  }

  /** Counts an item, or counts it anew. */
  count(item) {
    this.discount(item);
    const { answer } = item;
    const counted = {
      kind: this.kindOf(item),
      bar: answer ? Math.min(BARS - 1, Math.floor(answer.score * BARS)) : null,
      heat: Number(item.heat),
      retriable: Number(item.retriable),
      judge: item.state === "judged" ? answer : null,
    };
    this.#counted.set(item, counted);
    this.#add(counted, 1);
  }

  /** Takes an item out of the counts. */
  discount(item) {
    const counted = this.#counted.get(item);
    if (!counted) return;
    this.#counted.delete(item);
    this.#add(counted, -1);
  }

  #add({ kind, bar, heat, retriable, judge }, by) {
    this.kinds.all += by;
    this.kinds[kind] += by;
    this.heated += by * heat;
    this.retriable += by * retriable;
    if (bar !== null) this.bars[bar] += by;
    if (!judge) return;
    const entry = this.judges.get(judge.model_digest) ?? { answer: judge, count: 0 };
    entry.count += by;
    if (entry.count) this.judges.set(judge.model_digest, entry);
    else this.judges.delete(judge.model_digest);
  }
}
