// The page's client of the API. Paths are relative to the page, so that it works behind a prefix.

const KEY = "pairforge-key";

export class Refusal extends Error {
  constructor(status, { code = "", detail = "", errors = [] }) {
    super(detail);
    Object.assign(this, { status, code, errors });
  }
}

const unreachable = () => new Refusal(0, { code: "network" });

const parsed = (text) => { try { return JSON.parse(text); } catch { return null; } };

// What a server says that refuses; what stands before one, such as a proxy, says nothing that helps.
function refusal(status, said) {
  return new Refusal(status, said?.code ? said : { code: "unclear", detail: `HTTP ${status}` });
}

// What was answered, in JSON.
function content(status, text) {
  const said = parsed(text);
  if (status >= 300 || said === null) throw refusal(status, said);
  return said;
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

// Whether a refusal may pass by itself: the server is restarting, has too much to do, or cannot be reached.
export const passes = ({ status }) => !(status >= 400 && status < 500) || status === 429;

export const AGAIN = 3000; // ms until what may pass is tried again

const address = (path) => new URL(`v1/${path}`, document.baseURI);

async function fetched(path, options) {
  const answer = await fetch(address(path), options).catch((error) => { throw error.name === "AbortError" ? error : unreachable(); });
  if (answer.ok || answer.status === 304) return answer;
  throw refusal(answer.status, parsed(await answer.text()));
}

const bearer = (value) => (value ? { Authorization: `Bearer ${value}` } : {});

let askForKey = () => {};
let entered = null;
// `ask` is called where a key is needed, with what is to be called once somebody has entered one.
export const whenKeyIsNeeded = (ask) => { askForKey = ask; };

// Takes a key if the server does.
export async function enter(value) {
  await fetched("jobs?limit=1", { headers: bearer(value) });
  key.set(value);
}

// Asks with the key. Where the server takes it no longer, what was asked for waits for another key, so that nothing that was entered is lost.
async function keyed(ask) {
  for (;;) {
    const used = key.get();
    try { return await ask(bearer(used)); } catch (problem) { if (problem.status !== 401) throw problem; }
    if (key.get() === used) await (entered ||= new Promise((resolve) => askForKey(resolve)).finally(() => { entered = null; }));
  }
}

const send = (path, options = {}) => keyed((own) => fetched(path, { ...options, headers: { ...options.headers, ...own } }));

async function asked(path, options) {
  const answer = await send(path, options);
  return content(answer.status, await answer.text());
}

export const get = (path) => asked(path);

const random = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

// What is to be made and has not succeeded yet → its Idempotency-Key: asked for again, by a second click or after a failure, it is made once.
const intents = new Map();

async function once(intent, ask) {
  if (!intents.has(intent)) intents.set(intent, random());
  try {
    const made = await ask({ "Idempotency-Key": intents.get(intent) });
    intents.delete(intent);
    return made;
  } catch (problem) {
    if (problem.code === "idempotency_key_reused") intents.delete(intent);
    throw problem;
  }
}

export function post(path, content) {
  const body = JSON.stringify(content);
  return once(`${path} ${body}`, (own) => asked(path, { method: "POST", headers: { "Content-Type": "application/json", ...own }, body }));
}

export const act = (path) => asked(path, { method: "POST" });
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

const facts = (value) => (value instanceof File ? [value.name, value.size, value.lastModified] : value);

// A form with files, with the share of it that has been sent, 0–1.
export async function upload(path, form, onSent) {
  await send("jobs?limit=1"); // whose key is refused meanwhile may see nothing but a broken line
  const intent = JSON.stringify([path, ...[...form].map(([name, value]) => [name, facts(value)])]);
  return once(intent, (own) => keyed((bearing) => uploaded(path, form, onSent, { ...own, ...bearing })));
}

async function uploaded(path, form, onSent, headers) {
  const request = new XMLHttpRequest();
  await new Promise((resolve, reject) => {
    request.open("POST", address(path));
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onSent(event.loaded / event.total);
    request.onerror = () => reject(unreachable());
    request.onload = resolve;
    request.send(form);
  });
  return content(request.status, request.responseText);
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
      if (signal.aborted || (error.status === 404)) return;
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
