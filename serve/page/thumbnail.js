// Small pictures for the cards: who scrolls through thousands of photographs would else have all of each decoded, and kept.

const LARGE_BYTES = 150_000; // a smaller file is drawn as it is
const MOST_KEPT = 500; // some tens of kilobytes each
const SIDE = Math.ceil(420 * Math.min(2, devicePixelRatio)); // as wide as the widest card

const made = new Map(); // file → its small picture, the one that was used last at the end
const waiting = [];
let maker = null;
let making = null;

/** What is drawn on a card; undefined: it is to be made first. */
export function found(file) {
  if (file.size < LARGE_BYTES) return file;
  const small = made.get(file);
  if (!small) return undefined;
  made.delete(file);
  made.set(file, small);
  return small;
}

/** Tells when there is something to be found, unless it is not wanted any more when its turn comes. */
export function make(file, isWanted, onEnd) {
  waiting.push({ file, isWanted, onEnd });
  next();
}

function next() {
  if (making) return;
  while (waiting.length && !making) {
    const first = waiting.shift();
    if (first.isWanted() && !found(first.file)) making = first;
    else first.onEnd();
  }
  if (!making) return;
  maker ??= begin();
  maker.postMessage({ file: making.file, side: SIDE });
}

function begin() {
  const worker = new Worker(new URL("thumbnailer.js", import.meta.url));
  worker.addEventListener("message", ({ data }) => end(data ?? making.file));
  worker.addEventListener("error", () => {
    maker = null; // one that could not be loaded never answers
    end(making.file);
  });
  return worker;
}

function end(small) {
  const { file, onEnd } = making;
  making = null;
  made.set(file, small);
  if (made.size > MOST_KEPT) made.delete(made.keys().next().value);
  onEnd();
  next();
}
