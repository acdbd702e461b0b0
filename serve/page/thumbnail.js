// Small pictures for the cards: who scrolls through thousands of photographs would else have all of each decoded, and kept.

const LARGE_BYTES = 150_000; // a smaller file is drawn as it is
const MOST_KEPT = 500; // some tens of kilobytes each
const SIDE = Math.ceil(420 * Math.min(2, devicePixelRatio)); // as wide as the widest card

const AT_ONCE = 3; // so that the one that makes them need not wait for a page that is busy

const made = new Map(); // file → its small picture, the one that was used last at the end
const waiting = [];
const making = []; // in the order in which they will be there
let maker = null;

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
  while (waiting.length && making.length < AT_ONCE) {
    const job = waiting.shift();
    if (job.isWanted() && !found(job.file)) {
      making.push(job);
      maker ??= begin();
      maker.postMessage({ file: job.file, side: SIDE });
    } else {
      job.onEnd();
    }
  }
}

function begin() {
  const worker = new Worker(new URL("thumbnailer.js", import.meta.url));
  worker.addEventListener("message", ({ data }) => {
    end(making.shift(), data);
    next();
  });
  worker.addEventListener("error", () => {
    maker = null; // one that could not be loaded never answers
    for (const job of making.splice(0)) end(job, null);
    next();
  });
  return worker;
}

function end({ file, onEnd }, small) {
  made.set(file, small ?? file);
  if (made.size > MOST_KEPT) made.delete(made.keys().next().value);
  onEnd();
}
