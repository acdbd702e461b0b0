// Talks to the service: photographs one by one and a few at a time, politely again where it is busy.

const AT_ONCE = 4;
// How long something is tried again, from the first time on that the service was busy or could not be reached.
const PATIENCE_SECONDS = { judging: 60, feedback: 20, facts: 5 };
const LONGEST_WAIT_SECONDS = 20;
const LONGEST_PAUSE_SECONDS = 4; // where nobody says how long to wait
const BUSY = new Set([408, 429, 502, 503, 504]);
const BUSY_UNLESS_OURS = new Set([404, 500]); // what stands before the service says so while none of it is there

/** An answer that is an error, in words. */
export class Refusal extends Error {
  /** @param {boolean} passes whether it may be otherwise in a moment */
  constructor(status, reason, passes) {
    super(reason);
    this.status = status;
    this.passes = passes;
  }
}

const pause = (seconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    });
  });

async function refusal(response) {
  const text = await response.text();
  try {
    return new Refusal(response.status, JSON.parse(text).error.reason, BUSY.has(response.status));
  } catch {
    // Ray Serve and proxies answer in plain text
    const words = { 404: "the service is not there", 408: "it took too long", 413: "the file is too large for a proxy on the way", 429: "the service is full", 503: "the service is full or starting" };
    const passes = BUSY.has(response.status) || BUSY_UNLESS_OURS.has(response.status);
    return new Refusal(response.status, words[response.status] ?? `the service answered ${response.status}${text && text.length < 200 ? `: ${text}` : ""}`, passes);
  }
}

/** Whether the file in a request's body is still what it was when it was chosen; a browser says of both: it failed. */
async function isReadable(body) {
  const file = body instanceof FormData ? body.get("photograph") : body;
  try {
    await file?.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

/**
 * Sends a request, and again where the service is busy or cannot be reached.
 * @param {number} patience seconds, from the first time on that it was not answered
 * @param {(seconds: number, reason: string) => void} onWait told of each wait before the next try
 */
async function send(path, options, patience, onWait = () => {}) {
  let until = null;
  for (let attempt = 1; ; attempt++) {
    let error, asked;
    try {
      const response = await fetch(path, options);
      if (response.ok) return response;
      error = await refusal(response);
      asked = Number(response.headers.get("Retry-After"));
    } catch (thrown) {
      if (thrown.name === "AbortError") throw thrown;
      if (!(await isReadable(options.body))) throw new Refusal(0, "the file cannot be read any more: it was moved, changed or deleted", true);
      error = new Refusal(0, "the service cannot be reached", true);
    }
    until ??= Date.now() + 1000 * patience;
    if (!error.passes || Date.now() >= until) throw error;
    // Not all at the same moment: they were refused together.
    const wait = asked > 0 ? Math.min(LONGEST_WAIT_SECONDS, asked) : Math.min(LONGEST_PAUSE_SECONDS, 0.5 * 2 ** (attempt - 1));
    const seconds = wait * (1 + 0.25 * Math.random());
    onWait(seconds, error.message);
    await pause(seconds, options?.signal);
  }
}

// While a canary runs, what this page shows at a time is judged by one version, and a heat-map is by the version that judged.
const CLIENT = `page-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`;
const raw = (file, signal) => ({ method: "POST", body: file, headers: { "Content-Type": "application/octet-stream", "X-Client-Id": CLIENT }, signal });

/** Judges a photograph, which counts unless it was judged before; `probabilities` are pairs of class and share, the good class first. */
export async function judge(file, signal, onWait, before) {
  const options = raw(file, signal);
  if (before) options.headers["X-Count"] = "false";
  return inClassOrder(await (await send("predict", options, PATIENCE_SECONDS.judging, onWait)).text());
}

/** The answer with its classes in the order in which it has them: JavaScript's objects put names like "2" first. */
function inClassOrder(text) {
  const answer = JSON.parse(text);
  const [, written] = /"probabilities"\s*:\s*\{([^}]*)\}/.exec(text); // a class's name has no braces, nor quotes
  const names = [...written.matchAll(/"([^"]+)"\s*:/g)].map(([, name]) => name);
  return { ...answer, probabilities: names.map((name) => [name, answer.probabilities[name]]) };
}

/** The photograph with its evidence, as a PNG. */
export async function heatmap(file, onWait) {
  const options = raw(file);
  options.headers["X-Count"] = "false"; // it has been judged and counted: its card shows the judgement
  return (await send("predict?explain=heatmap", options, PATIENCE_SECONDS.judging, onWait)).blob();
}

/** Keeps feedback; resolves when it is on the service's disk. */
export async function report(file, name, said, onWait) {
  const form = new FormData();
  for (const [key, value] of Object.entries(said)) if (value !== "" && value !== null && value !== undefined) form.append(key, String(value));
  form.append("photograph", file, name);
  return (await send("feedback", { method: "POST", body: form }, PATIENCE_SECONDS.feedback, onWait)).json();
}

async function facts(path) {
  return (await send(path, { headers: { Accept: "application/json" } }, PATIENCE_SECONDS.facts)).json();
}

export async function served() {
  return facts("served");
}

/** How the service does lately; null where nobody can say. */
export async function figures() {
  try {
    return await facts("served/figures");
  } catch {
    return null;
  }
}

/** The windows of photographs that were judged for drift; null where the service does not say. */
export async function windows() {
  try {
    return await facts("served/windows");
  } catch {
    return null;
  }
}

/** Works through items a few at a time, in order; `work` must not throw. */
export class Queue {
  #waiting = [];
  #running = 0;

  constructor(work) {
    this.work = work;
  }

  add(items) {
    for (const item of items) this.#waiting.push(item);
    while (this.#running < AT_ONCE && this.#waiting.length) this.#run();
  }

  /** Takes out what has not begun, and returns it; of some items only, or of all. */
  drain(some = null) {
    const out = some ? this.#waiting.filter((item) => some.has(item)) : this.#waiting;
    this.#waiting = some ? this.#waiting.filter((item) => !some.has(item)) : [];
    return out;
  }

  get busy() {
    return this.#running + this.#waiting.length;
  }

  async #run() {
    this.#running++;
    while (this.#waiting.length) await this.work(this.#waiting.shift());
    this.#running--;
  }
}
