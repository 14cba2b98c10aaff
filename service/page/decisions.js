// What a person decided on pairs: kept by the browser, and as a file where somebody wants one.
import { t } from "./texts.js";
import { useState } from "./vendor/hooks.js";

// Keeps a text in the browser; returns whether there was room.
export function stored(name, text) {
  try { localStorage.setItem(name, text); return true; } catch { return false; }
}

// Decisions on a review's pairs: key of a pair → decision, time and new mask. `saved` is false where the browser's store is full.
export function useDecisions(job) {
  const kept = `pairforge-review-${job}`;
  const [decisions, setDecisions] = useState(() => {
    try { return new Map(JSON.parse(localStorage.getItem(kept) || "[]")); } catch { return new Map(); }
  });
  const [saved, setSaved] = useState(true);
  const change = (edit) => setDecisions((before) => {
    const next = new Map(before);
    edit(next);
    setSaved(stored(kept, JSON.stringify([...next])));
    return next;
  });
  const decide = (keys, decision) => change((next) => {
    for (const key of keys) {
      if (decision === null) next.delete(key);
      else next.set(key, { ...next.get(key), ...decision, at: new Date().toISOString() });
    }
  });
  const take = (others) => change((next) => others.forEach((decision, key) => next.set(key, decision)));
  return { decisions, decide, take, saved };
}

// The pairs on which one decision was taken, as a selection's request has its `approved`.
export function decidedPairs(pairs, decisions, decision) {
  return pairs.filter(({ key }) => decisions.get(key)?.decision === decision).map(({ key, job, candidate }) => {
    const { at, mask } = decisions.get(key);
    return { candidate, job_id: job, at, ...(mask ? { mask } : {}) };
  });
}

// The decisions in a file: a selection's request, which may also have `rejected`, or the list of its `approved` alone.
export function readDecisions(text, job) {
  const found = new Map();
  let request;
  try {
    const read = JSON.parse(text);
    request = Array.isArray(read) ? { approved: read } : read;
    for (const decision of ["rejected", "approved"]) {
      for (const pair of request[decision] ?? []) {
        const { candidate, job_id = job, at = new Date().toISOString(), mask } = typeof pair === "number" ? { candidate: pair } : pair;
        if (!Number.isInteger(candidate)) throw new TypeError(candidate);
        found.set(`${job_id}/${candidate}`, { decision, at, ...(mask ? { mask } : {}) });
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
