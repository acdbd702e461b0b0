// The second view: what is served, since when, from which commit, and how well it does.

const panel = document.getElementById("served");

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const time = (text) => {
  const made = element("time", "", new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }));
  made.dateTime = text;
  return made;
};
const share = (value) => (value === undefined || value === null ? "–" : value.toFixed(3));
const TONES = { Synced: "good", Healthy: "good", OutOfSync: "warn", Progressing: "warn", Missing: "warn", Unknown: "warn" };
const WINDOW_TONES = { stable: "good", drifted: "bad", too_few: "warn" };
const badge = (word) => element("span", `badge ${TONES[word] ?? "bad"}`, word);
const code = (text, length = 12) => Object.assign(element("code", "", text.slice(0, length)), { title: text });

function tile(title, value, ...more) {
  return element("div", "tile", element("span", "soft", title), element("strong", "", value), ...more.map((text) => element("small", "soft", text)));
}

function list(title, rows) {
  const pairs = rows.filter(([, value]) => value !== null).flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]);
  return element("section", "box", element("h2", "", title), element("dl", "", ...pairs));
}

function reportLink(sha256, text) {
  const link = element("a", "", text);
  link.href = `served/evaluation/${sha256}`;
  link.target = "_blank";
  link.rel = "noopener";
  return link;
}

function modelBox(model) {
  const training = model.training;
  const remembered = training.memory ? `, remembers ${training.memory.images} good parts` : "";
  const [height, width, channels] = model.input;
  return list("The model", [
    ["bundle", code(model.sha256)],
    ["classes", `${model.classes.join(", ")} (the first is good)`],
    ["threshold", `${model.threshold.toFixed(3)}: ${model.threshold_method} (${model.threshold_split})`],
    ["network", `${training.backbone}, ${training.weights === "none" ? "own weights" : `${training.weights} weights`}${remembered}`],
    ["input", `${width}×${height}, ${channels === 1 ? "gray" : "colour"}${model.straightened ? ", the part found and straightened" : ""}`],
    ["trained on", element("span", "", "dataset ", code(model.dataset))],
    ["made with", Object.entries(model.frameworks).map(([name, version]) => `${name} ${version}`).join(", ") || null],
  ]);
}

/** What is tried beside the model, in a line. */
function trialLine(trial, model) {
  if (!trial) return null;
  if (!trial.loaded) return element("p", "notice", `A ${trial.kind} of version ${trial.version} is wanted, but not loaded${trial.load_error ? `: ${trial.load_error}` : " yet"}.`);
  const does = trial.kind === "canary" ? `answers ${trial.percent} % of the requests` : "judges the same photographs afterwards, and answers none";
  return element("p", "soft trial", element("strong", "", `${trial.kind === "canary" ? "Canary" : "Shadow"}: version ${trial.version} `), `${does} (bundle `, code(trial.sha256), `, beside version ${model.version}).`);
}

function environmentBox(found) {
  const environment = found.environment;
  if (!environment) {
    const why = found.environment_error ?? "this replica is not told where the reconciler keeps its journal (args.journal of the application); on a cluster Argo CD shows it";
    return element("section", "box", element("h2", "", "The environment"), element("p", "soft", `Commit, sync, health and history are not known here: ${why}.`));
  }
  return list("The environment", [
    ["name", environment.name],
    ["sync", badge(environment.sync)],
    ["health", badge(environment.health)],
    ["commit", environment.revision ? code(environment.revision) : "–"],
    ["looked at", environment.seen_at ? time(environment.seen_at) : "never"],
    ["reconciler", environment.watched ? "running" : "not running"],
    ["message", environment.message || null],
    ["replica", code(found.replica, 40)],
  ]);
}

function evaluationBox(found) {
  const report = found.evaluation;
  const heading = element("h2", "", "The evaluation");
  const link = found.report && found.model ? reportLink(found.model.sha256, "Open the whole report") : null;
  if (!report) {
    const text = "Its figures are not known here: they are registered where the model was trained.";
    return element("section", "box wide", heading, element("p", "soft", text), link);
  }
  const { metrics } = report;
  const tiles = [
    tile("accuracy", share(metrics.accuracy), `${report.images} held-out images`, metrics.accuracy_low !== undefined ? `95 %: ${share(metrics.accuracy_low)}–${share(metrics.accuracy_high)}` : ""),
    ...(metrics.cross_validated_accuracy !== undefined ? [tile("accuracy, out of fold", share(metrics.cross_validated_accuracy), report.cross_validation ? `${report.cross_validation.images} images` : "")] : []),
    tile("AUROC", share(metrics.auroc)),
    tile("recall", share(metrics.recall), "of what is not good is found"),
    tile("precision", share(metrics.precision), "of what is flagged is not good"),
    tile("loss", share(metrics.loss), "nats"),
  ];
  const names = Object.keys(report.confusion);
  const head = element("tr", "", element("th", "", "truth"), ...names.map((name) => element("th", "number", `judged ${name}`)));
  const rows = names.map((truth) =>
    element("tr", "", element("th", "", truth), ...names.map((name) => element("td", `number ${name === truth ? "right" : "off"}`, String(report.confusion[truth][name] ?? 0)))),
  );
  const table = element("table", "", element("thead", "", head), element("tbody", "", ...rows));
  return element("section", "box wide", element("div", "row", heading, element("span", "grow"), link), element("div", "tiles", ...tiles), element("div", "scroll", table));
}

const milliseconds = (seconds) => (seconds === null || seconds === undefined ? "–" : `${(1000 * seconds).toFixed(seconds < 0.1 ? 1 : 0)} ms`);
const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(value && value < 0.01 ? 2 : 1)} %`);

/** The same by version, where there are two: those that were asked lately, and those that are there to be asked. */
function versionsTable(found, { model, trial }) {
  const { versions = {}, shadows = {} } = found; // an older replica has no such figures
  const here = [model?.version, trial?.loaded && trial.version].filter(Boolean);
  const names = [...new Set([...Object.keys(versions), ...Object.keys(shadows), ...here])].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
  if (names.length < 2) return null;
  const roles = { [trial?.version]: trial?.kind, [model?.version]: "served" };
  const rows = names.map((name) => {
    const figures = versions[name];
    const answers = [figures ? `${figures.requests_per_second.toFixed(1)}/s` : "–", milliseconds(figures?.p50_seconds), milliseconds(figures?.p99_seconds), percent(figures?.error_share)];
    return element(
      "tr",
      "",
      element("th", "", name === "none" ? "no model" : `version ${name}`, element("span", "soft", roles[name] ? ` ${roles[name]}` : "")),
      ...(shadows[name] && !figures ? [Object.assign(element("td", "wrap", comparison(shadows[name])), { colSpan: answers.length })] : answers.map((text) => element("td", "number", text))),
    );
  });
  const head = element("tr", "", ...["", "requests", "half within", "99 % within", "errors"].map((name) => element("th", name && "number", name)));
  return element("div", "scroll versions", element("table", "", element("thead", "", head), element("tbody", "", ...rows)));
}

/** What a shadow made of the photographs, which others answered. */
function comparison({ agreed, differed, failed, dropped }) {
  const judged = agreed + differed;
  const others = [failed && `${Math.round(failed)} it could not judge`, dropped && `for ${Math.round(dropped)} there was no time`].filter(Boolean);
  const words = judged ? `judged ${Math.round(judged)} ${Math.round(judged) === 1 ? "photograph" : "photographs"} afterwards, ${percent(differed / judged)} otherwise` : "judged no photograph afterwards";
  return [words, ...others].join("; ");
}

/** How the service does lately; null: it is not known. */
function latelyBox(found, facts) {
  if (!found) return null;
  const { drift } = found;
  const span = `over ${Math.round(found.figures.seconds / 60) || 1} min`;
  const drifted = drift && Object.keys(drift).filter((kind) => drift[kind] && kind !== "any");
  const tiles = [
    tile("requests", `${found.figures.requests_per_second.toFixed(1)}/s`, span),
    tile("half are answered within", milliseconds(found.figures.p50_seconds), `99 %: ${milliseconds(found.figures.p99_seconds)}`),
    tile("errors", percent(found.figures.error_share), "of the requests"),
    ...(drift ? [tile("drift", drift.any ? "yes" : "no", drifted.length ? drifted.join(", ") : "nothing has changed")] : []),
  ];
  const source = found.source === "prometheus" ? "By Prometheus, of all replicas." : `Of this replica alone${found.problem ? `: ${found.problem}` : ""}.`;
  return element("section", "box wide", element("h2", "", "Lately"), element("div", "tiles", ...tiles), versionsTable(found, facts), element("p", "soft", source));
}

/** What the monitor found in the latest windows of photographs; null: there is no monitor. */
function driftBox(found, model) {
  if (!found?.watched) return null;
  const heading = element("h2", "", "Drift");
  const [last] = found.windows;
  if (!last) return element("section", "box wide", heading, element("p", "soft", "No window of photographs is full yet."));
  // A window of few photographs, or of a candidate, says nothing of the model.
  const judged = found.windows.find((entry) => entry.outcome !== "too_few" && entry.model_version === model?.version);
  const since = judged?.drifting_since ? element("p", "notice", `What is shown has differed from the reference of version ${judged.model_version} since `, time(judged.drifting_since), ".") : null;
  const rows = found.windows.map((entry) =>
    element(
      "tr",
      "",
      element("td", "", time(entry.ended_at)),
      element("td", "", `version ${entry.model_version}`),
      element("td", "number", String(entry.photographs)),
      element("td", "", element("span", `badge ${WINDOW_TONES[entry.outcome]}`, entry.outcome.replace("_", " "))),
      element("td", "wrap", entry.drifted.join(", ")),
      element("td", "wrap", element("span", "examples", ...[...new Set(entry.examples)].map(exampleLink))),
    ),
  );
  const head = element("tr", "", ...["ended", "model", "photographs", "outcome", "what drifted", "photographs, the least sure first"].map((name, at) => element("th", at === 2 ? "number" : "", name)));
  return element("section", "box wide", heading, since, element("div", "scroll", element("table", "", element("thead", "", head), element("tbody", "", ...rows))));
}

function exampleLink(sha256, at) {
  const link = element("a", "", String(at + 1));
  link.href = `served/windows/${sha256}`;
  link.target = "_blank";
  link.rel = "noopener";
  link.title = `photograph ${sha256.slice(0, 12)}`;
  return link;
}

function historyBox(environment, current) {
  if (!environment) return null;
  const folded = []; // a commit that was deployed several times in a row is one line
  for (const entry of environment.history) {
    if (folded.at(-1)?.entry.revision === entry.revision) folded.at(-1).times++;
    else folded.push({ entry, times: 1 });
  }
  const rows = folded.map(({ entry, times }, place) => {
    const version = (entry.version ? `version ${entry.version}` : "no model") + (entry.trial ? ` with a ${entry.trial}` : "");
    return element(
      "tr",
      place === 0 && entry.sha256 && entry.sha256 === current ? "now" : "",
      element("td", "", time(entry.at), times > 1 ? element("span", "soft", ` ${times}×`) : null),
      element("td", "wrap", version),
      element("td", "wrap", entry.subject),
      element("td", "wrap", entry.author),
      element("td", "", code(entry.revision)),
      element("td", "", entry.report ? reportLink(entry.sha256, "report") : ""),
    );
  });
  const head = element("tr", "", ...["deployed", "model", "commit", "by", "revision", "evaluation"].map((name) => element("th", "", name)));
  const table = element("table", "", element("thead", "", head), element("tbody", "", ...rows));
  const body = rows.length ? element("div", "scroll", table) : element("p", "soft", "Nothing was deployed yet.");
  return element("section", "box wide", element("h2", "", "History"), body);
}

const error = element("p", "notice");
error.hidden = true;
const head = element("div");
const grid = element("div", "grid");
panel.append(error, head, grid);

/** Draws the view from the answers of GET /served, /served/figures and /served/windows; the last two may be null. */
export function draw(found, lately, drift) {
  const { model } = found;
  const problem = found.load_error ?? (found.wanted && !model ? "the model is being loaded" : null);
  const title = model ? `${model.name} version ${model.version}` : "No model is served";
  const hero = element(
    "div",
    "hero",
    element("div", "grow", element("h1", "", title), element("p", "soft", ...(model ? ["served since ", time(model.since)] : []))),
    ...(found.environment ? ["sync", "health"].map((name) => element("span", "soft", `${name} `, badge(found.environment[name]))) : []),
  );
  error.hidden = true;
  settle(head, [hero, problem && element("p", "notice", problem), model && trialLine(found.trial, model)]);
  settle(grid, [latelyBox(lately, found), driftBox(drift, model), evaluationBox(found), environmentBox(found), model && modelBox(model), historyBox(found.environment, model?.sha256)]);
}

/** Puts nodes in the place of those that differ: where nothing has changed, focus and scroll position stay. */
function settle(parent, nodes) {
  const fresh = nodes.filter(Boolean);
  fresh.forEach((node, place) => {
    const old = parent.children[place];
    if (!old) parent.append(node);
    else if (!old.isEqualNode(node)) old.replaceWith(node);
  });
  while (parent.children.length > fresh.length) parent.lastElementChild.remove();
}

/** What was known last stays below. */
export function drawError(reason) {
  error.textContent = `What is served cannot be asked: ${reason.message}.${head.children.length ? " Below is what was known last." : ""}`;
  error.hidden = false;
}
