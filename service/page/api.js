// The page's client of the API. Paths are relative to the page, so that it works behind a prefix.

const KEY = "pairforge-key";

export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `HTTP ${status}`);
    this.status = status;
    this.errors = problem.errors || [];
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

let onUnauthorized = () => {};
export const whenUnauthorized = (action) => { onUnauthorized = action; };

// Whether a refusal may pass by itself: the server is restarting, has too much to do, or cannot be reached.
export const passes = ({ status }) => !(status >= 400 && status < 500) || status === 429;

export const AGAIN = 3000; // ms until what may pass is tried again

const address = (path) => new URL(`v1/${path}`, document.baseURI);

function headers(more = {}) {
  return key.get() ? { ...more, Authorization: `Bearer ${key.get()}` } : more;
}

async function send(path, options = {}) {
  const answer = await fetch(address(path), { ...options, headers: headers(options.headers) }).catch((error) => {
    throw error.name === "AbortError" ? error : new Refusal(0, { detail: "network" });
  });
  if (answer.ok || answer.status === 304) return answer;
  const text = await answer.text();
  let problem = {};
  try { problem = JSON.parse(text); } catch { problem = { detail: text.slice(0, 300) }; }
  if (answer.status === 401) onUnauthorized();
  throw new Refusal(answer.status, problem);
}

export const get = async (path) => (await send(path)).json();

export async function post(path, body) {
  return (await send(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).json();
}

export const act = async (path) => (await send(path, { method: "POST" })).json();
export const remove = (path) => send(path, { method: "DELETE" });

// All pages of a list whose answers have `data` and `next_cursor`.
export async function all(path, limit) {
  const found = [];
  for (let cursor = null; ;) {
    const page = await get(`${path}${path.includes("?") ? "&" : "?"}limit=${limit}${cursor ? `&cursor=${cursor}` : ""}`);
    found.push(...page.data);
    cursor = page.next_cursor;
    if (!cursor) return found;
  }
}

// A form with files, with the share of it that has been sent, 0–1.
export function upload(path, form, onSent) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address(path));
    for (const [name, value] of Object.entries(headers())) {
      request.setRequestHeader(name, value);
    }
    request.upload.onprogress = (event) => event.lengthComputable && onSent(event.loaded / event.total);
    request.onerror = () => reject(new Refusal(0, { detail: "network" }));
    request.onload = () => {
      let body = {};
      try { body = JSON.parse(request.responseText); } catch { body = { detail: request.statusText }; }
      if (request.status < 300) return resolve(body);
      if (request.status === 401) onUnauthorized();
      return reject(new Refusal(request.status, body));
    };
    request.send(form);
  });
}

export const blob = async (path) => (await send(path)).blob();

// Pictures need the key in a header, so they are fetched and shown as blobs; the last ones are kept.
const KEPT = 400;
const pictures = new Map();

export function picture(path) {
  let found = pictures.get(path);
  if (found) {
    pictures.delete(path);
  } else {
    found = blob(path).then((content) => URL.createObjectURL(content));
    found.catch(() => pictures.delete(path));
  }
  pictures.set(path, found);
  if (pictures.size > KEPT) {
    const [oldest, url] = pictures.entries().next().value;
    pictures.delete(oldest);
    url.then(URL.revokeObjectURL, () => {});
  }
  return found;
}

// Server-sent events by fetch, since EventSource sends no headers. Resumes after the last event until `signal` aborts.
export async function events(path, onEvent, signal) {
  let last = null;
  let pause = 1000;
  while (!signal.aborted) {
    try {
      const more = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
      const answer = await send(path, { headers: more, signal });
      if (answer.status === 204) return;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        pause = 1000;
        text += value;
        const blocks = text.split("\n\n");
        text = blocks.pop();
        for (const block of blocks) {
          const lines = Object.fromEntries(block.split("\n").filter((line) => line.includes(": ") && !line.startsWith(":"))
            .map((line) => [line.slice(0, line.indexOf(": ")), line.slice(line.indexOf(": ") + 2)]));
          if (lines.id) last = lines.id;
          if (lines.data) {
            const event = JSON.parse(lines.data);
            onEvent(event);
            if (["succeeded", "failed", "cancelled"].includes(event.state)) return;
          }
        }
      }
    } catch (error) {
      if (signal.aborted || (error instanceof Refusal && [401, 404].includes(error.status))) return;
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(15000, 2 * pause);
  }
}

// A download without leaving the page: the link is temporary and needs no key.
export async function download(job) {
  const { url } = await get(`jobs/${job}/dataset?redirect=false`);
  const link = document.createElement("a");
  link.href = url;
  link.rel = "noopener";
  link.click();
}
