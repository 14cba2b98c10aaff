// What a person decided on pairs: kept by the browser, and as a file where somebody wants one.
import { t } from "./texts.js";
import { useEffect, useState } from "./vendor/hooks.js";

// Keeps a text in the browser; returns whether there was room.
export function stored(name, text) {
  try { localStorage.setItem(name, text); return true; } catch { return false; }
}

const time = (decision) => Date.parse(decision?.at) || 0;

// The decisions of both, the newest of each pair.
function merged(decisions, others) {
  const both = new Map(decisions);
  for (const [key, decision] of others) if (time(decision) > time(both.get(key))) both.set(key, decision);
  return both;
}

function read(name) {
  try { return new Map(JSON.parse(localStorage.getItem(name) || "[]")); } catch { return new Map(); }
}

// Decisions on a review's pairs, in all tabs: key of a pair → decision, time and new mask; one that was taken back is "open". `saved` is false where
// the browser's store is full.
export function useDecisions(review) {
  const kept = `pairforge-review-${review}`;
  const [decisions, setDecisions] = useState(() => read(kept));
  const [saved, setSaved] = useState(true);
  const change = (edit) => setDecisions((before) => {
    const there = read(kept); // another tab may have written it
    const next = merged(before, there);
    edit(next);
    const isNew = [...next].some(([key, decision]) => time(decision) > time(there.get(key)));
    setSaved(!isNew || stored(kept, JSON.stringify([...next])));
    return next;
  });
  useEffect(() => {
    const written = (event) => { if (event.key === kept) change(() => {}); };
    addEventListener("storage", written);
    return () => removeEventListener("storage", written);
  }, [kept]);
  const decide = (keys, decision) => change((next) => {
    for (const key of keys) {
      const before = next.get(key);
      const at = new Date(Math.max(Date.now(), time(before) + 1)).toISOString();
      next.set(key, decision === null ? { decision: "open", at } : { ...before, ...decision, at });
    }
  });
  // Takes what is newer than here; returns how many those are.
  const take = (others) => {
    const newer = [...others].filter(([key, decision]) => time(decision) > time(decisions.get(key)));
    change((next) => merged(next, newer).forEach((decision, key) => next.set(key, decision)));
    return newer.length;
  };
  return { decisions, decide, take, saved };
}

// The pairs on which one decision was taken, as a selection's request has its `approved`.
export function decidedPairs(pairs, decisions, decision) {
  return pairs.filter(({ key }) => decisions.get(key)?.decision === decision).map(({ key, job, candidate }) => {
    const { at, mask } = decisions.get(key);
    return { candidate, job_id: job, at, ...(mask ? { mask } : {}) };
  });
}

// The decisions in a file: a selection's request, which may also have `rejected`, or the list of its `approved` alone. Those without a time are as old as it.
export async function readDecisions(file, job) {
  const text = await file.text();
  const found = new Map();
  let request;
  try {
    const read = JSON.parse(text);
    request = Array.isArray(read) ? { approved: read } : read;
    for (const decision of ["rejected", "approved"]) {
      for (const pair of request[decision] ?? []) {
        const { candidate, job_id = job, at, mask } = typeof pair === "number" ? { candidate: pair } : pair;
        if (!Number.isInteger(candidate)) throw new TypeError(candidate);
        found.set(`${job_id}/${candidate}`, { decision, at: new Date(Date.parse(at) || file.lastModified).toISOString(), ...(mask ? { mask } : {}) });
      }
    }
  } catch {
    found.clear();
  }
  if (!found.size) throw new Error(t("decisions_unusable"));
  return { found, reviewer: request.reviewer, formats: request.formats };
}

export function saveAs(name, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
