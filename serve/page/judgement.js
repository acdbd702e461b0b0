// What a photograph is judged at a threshold, in which order, and as CSV: functions of values, without a page.

/** The label at a threshold: the first class (good) below it, else the likeliest of the others. */
export function labelAt(answer, threshold) {
  const [[good], ...others] = Object.entries(answer.probabilities);
  if (answer.score < threshold) return good;
  return others.reduce((best, next) => (next[1] > best[1] ? next : best))[0];
}

export function isGood(answer, threshold) {
  return answer.score < threshold;
}

/** Orders by name; items without an answer come last, in the order in which they were added. */
export function sorter(order, threshold) {
  const keys = {
    worst: (item) => -item.answer.score,
    best: (item) => item.answer.score,
    close: (item) => Math.abs(item.answer.score - threshold),
  };
  if (order === "name") return (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }) || a.index - b.index;
  const key = keys[order];
  if (!key) return (a, b) => a.index - b.index;
  return (a, b) => {
    if (!a.answer || !b.answer) return !a.answer - !b.answer || a.index - b.index;
    return key(a) - key(b) || a.index - b.index;
  };
}

/** A score or threshold as people read it. */
export function figure(value) {
  return value < 0.0005 ? "< 0.001" : value >= 0.9995 ? "> 0.999" : value.toFixed(3);
}

const COLUMNS = ["filename", "label", "score", "threshold", "model_name", "model_version", "model_digest", "part_found", "feedback", "error"];

/** A CSV file with a line for each item that is judged or failed. */
export function csv(items, threshold) {
  const rows = items.filter((item) => item.answer || item.error).map((item) => row(item, threshold));
  // Excel takes a file without the mark for one in its own country's encoding.
  return "\ufeff" + [COLUMNS, ...rows].map((cells) => cells.map(quoted).join(",") + "\r\n").join("");
}

function row(item, threshold) {
  const answer = item.answer;
  if (!answer) return [item.name, "", "", "", "", "", "", "", "", item.error];
  const { model_name, model_version, model_digest, part_found, score } = answer;
  const judged = [labelAt(answer, threshold), score.toFixed(6), String(threshold)];
  return [item.name, ...judged, model_name, model_version, model_digest, String(part_found), item.reported ?? "", ""];
}

/** A cell; one that a spreadsheet would run as a formula gets an apostrophe before it. */
function quoted(text) {
  const safe = /^[\s]*[=+\-@]/.test(text) || /^[\t\r\n]/.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}
