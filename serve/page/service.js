// Talks to the service: photographs one by one and a few at a time, politely again where it is busy.

const AT_ONCE = 4;
const TRIES = 6;
const LONGEST_WAIT_SECONDS = 20;
const BUSY = new Set([408, 429, 502, 503, 504]);

/** An answer that is an error, in words. */
export class Refusal extends Error {
  constructor(status, reason) {
    super(reason);
    this.status = status;
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
    return new Refusal(response.status, JSON.parse(text).error.reason);
  } catch {
    // Ray Serve and proxies answer in plain text
    const words = { 408: "it took too long", 413: "the file is too large for a proxy on the way", 429: "the service is full", 503: "the service is full or starting" };
    return new Refusal(response.status, words[response.status] ?? `the service answered ${response.status}${text && text.length < 200 ? `: ${text}` : ""}`);
  }
}

/**
 * Sends a request, and again where the service is busy or cannot be reached.
 * @param {(seconds: number, reason: string) => void} onWait told of each wait before the next try
 */
export async function send(path, options, onWait = () => {}) {
  for (let attempt = 1; ; attempt++) {
    let error, asked;
    try {
      const response = await fetch(path, options);
      if (response.ok) return response;
      error = await refusal(response);
      if (!BUSY.has(response.status)) throw error;
      asked = Number(response.headers.get("Retry-After"));
    } catch (thrown) {
      if (thrown.name === "AbortError" || (thrown instanceof Refusal && !BUSY.has(thrown.status))) throw thrown;
      error = thrown instanceof Refusal ? thrown : new Refusal(0, "the service cannot be reached");
    }
    if (attempt === TRIES) throw error;
    // Not all at the same moment: they were refused together.
    const seconds = Math.min(LONGEST_WAIT_SECONDS, asked > 0 ? asked : 0.5 * 2 ** (attempt - 1)) * (1 + 0.25 * Math.random());
    onWait(seconds, error.message);
    await pause(seconds, options?.signal);
  }
}

// While a canary runs, what this page shows at a time is judged by one version, and a heat-map is by the version that judged.
const CLIENT = `page-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`;
const raw = (file, signal) => ({ method: "POST", body: file, headers: { "Content-Type": "application/octet-stream", "X-Client-Id": CLIENT }, signal });

/** Judges a photograph. */
export async function judge(file, signal, onWait) {
  return (await send("predict", raw(file, signal), onWait)).json();
}

/** The photograph with its evidence, as a PNG. */
export async function heatmap(file) {
  return (await send("predict?explain=heatmap", raw(file))).blob();
}

/** Keeps feedback; resolves when it is on the service's disk. */
export async function report(file, name, said) {
  const form = new FormData();
  for (const [key, value] of Object.entries(said)) if (value !== "" && value !== null && value !== undefined) form.append(key, String(value));
  form.append("photograph", file, name);
  return (await send("feedback", { method: "POST", body: form })).json();
}

export async function served() {
  return (await send("served", { headers: { Accept: "application/json" } })).json();
}

/** How the service does lately; null where nobody can say. */
export async function figures() {
  try {
    return await (await send("served/figures", { headers: { Accept: "application/json" } })).json();
  } catch {
    return null;
  }
}

/** The windows of photographs that were judged for drift; null where the service does not say. */
export async function windows() {
  try {
    return await (await send("served/windows", { headers: { Accept: "application/json" } })).json();
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

  /** Takes out what has not begun, and returns it. */
  drain() {
    return this.#waiting.splice(0);
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
