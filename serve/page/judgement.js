// What a photograph is judged at a threshold, in which order, and as CSV: functions of values, without a page.

/** The label at a threshold: the service's at its own; else the first class (good) below it, or the likeliest other. */
export function labelAt(answer, threshold) {
  if (threshold === answer.threshold) return answer.label;
  const [[good], ...others] = answer.probabilities;
  if (answer.score < threshold) return good;
  return others.reduce((best, next) => (next[1] > best[1] ? next : best))[0];
}

export function isGood(answer, threshold) {
  return answer.score < threshold;
}

const NAMES = new Intl.Collator(undefined, { numeric: true }); // many times as fast as localeCompare

/**
 * Orders by name; items without an answer come last, in the order in which they were added.
 * @param {(answer: object) => number} thresholdOf the threshold that an answer is judged at
 */
export function sorter(order, thresholdOf) {
  const keys = {
    worst: (item) => -item.answer.score,
    best: (item) => item.answer.score,
    close: (item) => Math.abs(item.answer.score - thresholdOf(item.answer)),
  };
  if (order === "name") return (a, b) => NAMES.compare(a.name, b.name) || a.index - b.index;
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

const COLUMNS = ["filename", "label", "score", "threshold", "model_name", "model_version", "model_digest", "part_found", "judged_at", "request_id", "feedback", "error"];

/** A CSV file with a line for each item that is judged or failed. */
export function csv(items, thresholdOf) {
  const rows = items.filter((item) => item.answer || item.error).map((item) => row(item, item.answer && thresholdOf(item.answer)));
  // Excel takes a file without the mark for one in its own country's encoding.
  return "\ufeff" + [COLUMNS, ...rows].map((cells) => cells.map(quoted).join(",") + "\r\n").join("");
}

function row(item, threshold) {
  const answer = item.answer;
  if (!answer) return [item.name, ...COLUMNS.slice(2).map(() => ""), item.error];
  const { model_name, model_version, model_digest, part_found, score } = answer;
  const judged = [labelAt(answer, threshold), score.toFixed(6), String(threshold)];
  return [item.name, ...judged, model_name, model_version, model_digest, String(part_found), item.at.toISOString(), answer.id, item.report?.label ?? "", ""];
}

/** A cell; one that a spreadsheet would run as a formula gets an apostrophe before it. */
function quoted(text) {
  const safe = /^\s*[=+\-@＝＋－＠]/.test(text) || /^[\t\r\n]/.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}
