// Says how many judgements are those of versions that are not served any more.

const notice = document.getElementById("outdated");

/**
 * @param {{ answer: object, count: number }[]} judges who judged, and how many: those that are not served any more
 * @param {object | undefined} model the one that is served; undefined: none, and then there are no such judges
 * @param {boolean} moved whether the user chose the threshold; else each judgement is at its own model's
 */
export function draw(judges, model, moved) {
  notice.hidden = judges.length === 0;
  if (!judges.length) return;
  const count = judges.reduce((sum, judge) => sum + judge.count, 0);
  const versions = [...new Set(judges.map(({ answer }) => answer.model_version))].sort((a, b) => a - b);
  const [which, own] = versions.length > 1 ? [`versions ${versions.join(" and ")}`, "their own thresholds"] : [`version ${versions[0]}`, "its own threshold"];
  document.getElementById("outdated-text").textContent = `${count} ${count > 1 ? "were" : "was"} judged by ${which}${moved ? "" : `, at ${own}`}.`;
  document.getElementById("rejudge").textContent = `Judge again with version ${model.version}`;
}
