// Small parts that all views use.
import htm from "./vendor/htm.js";
import { useEffect, useLayoutEffect, useRef, useState } from "./vendor/hooks.js";
import { Component, h } from "./vendor/preact.js";
import * as api from "./api.js";
import { number, optionHelp, t } from "./texts.js";

export const html = htm.bind(h);
export { Component, useEffect, useLayoutEffect, useRef, useState };
export { useMemo } from "./vendor/hooks.js";

export const ENDED = ["succeeded", "failed", "cancelled"];

// Whether each part of the view has what would be lost: nobody leaves it without being asked.
const unsent = new Set();
const isUnsent = () => [...unsent].some((is) => is());
addEventListener("beforeunload", (event) => { if (isUnsent()) event.preventDefault(); });
export const mayLeave = () => !isUnsent() || confirm(t("leave_really"));

export function useUnsent(is) {
  const latest = useRef();
  latest.current = is;
  useEffect(() => {
    const own = () => latest.current();
    unsent.add(own);
    return () => unsent.delete(own);
  }, []);
}

// To the view that comes after what is sent, unless somebody has left meanwhile; `next` tells its address, of the answer.
export async function goAfter(sent, next) {
  const from = location.hash;
  const answer = await sent;
  if (location.hash !== from) return;
  unsent.clear();
  location.hash = next(answer);
}

// A picture of the API; `alt` says what it shows. One that scrolls past faster than the delay is not asked for.
export function Picture({ path, alt, className = "", delay = 0 }) {
  const [source, setSource] = useState(null);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    let alive = true;
    setFailed(false);
    const ask = () => api.picture(path).then((url) => alive && setSource(url), () => alive && setFailed(true));
    const timer = delay ? setTimeout(ask, delay) : ask() && 0;
    return () => { alive = false; clearTimeout(timer); };
  }, [path]);
  if (failed) return html`<span class="blank ${className}">${t("no_picture")}</span>`;
  return source ? html`<img class=${className} src=${source} alt=${alt} decoding="async" />` : html`<span class="blank ${className}"></span>`;
}

// What was refused: by its code in the chosen language, below it the server's own words, which are English.
export function Refused({ error }) {
  if (!error) return null;
  const errors = (error.errors || []).map((entry) => entry.detail).filter(Boolean);
  const lang = error.code ? "en" : undefined;
  return html`<div class="refusal" role="alert">
    ${error.code && html`<p>${t(`problem_${error.code}`)}</p>`}
    ${errors.length > 1 ? html`<ul lang=${lang}>${errors.map((detail) => html`<li>${detail}</li>`)}</ul>` : error.message && html`<p lang=${lang}>${error.message}</p>`}
  </div>`;
}

// Why accepted work has failed.
export function Failed({ record: { error } }) {
  return error && html`<${Refused} error=${{ code: error.code, message: error.detail, errors: error.problems.map((detail) => ({ detail })) }} />`;
}

// Sends a form; `why` says what still keeps it from being sent.
export function Send({ id, label, busy, why }) {
  return html`<div class="send"><button type="submit" disabled=${busy || Boolean(why)} aria-describedby=${`${id}-why`}>${label}</button>
    <p id=${`${id}-why`} role="status"><small>${why}</small></p></div>`;
}

export function State({ state }) {
  return html`<span class="state ${state}">${t(`state_${state}`)}</span>`;
}

export function Progress({ record }) {
  const { state, progress, queue_position: ahead } = record;
  if (state === "queued") return html`<p role="status">${ahead ? t("queued_behind", { n: ahead }) : t("queued")}</p>`;
  if (!progress || ENDED.includes(state)) return null;
  const known = progress.total > 0 && progress.unit !== "parts";
  return html`<div class="progress">
    <progress aria-label=${t("progress")} max=${known ? progress.total : undefined} value=${known ? progress.completed : undefined}></progress>
    <p role="status">
      ${t(`stage_${progress.stage}`)}${known ? `: ${progress.completed} / ${progress.total} ${t(`unit_${progress.unit}`)}` : ""}
      ${progress.rate ? ` · ${number(progress.rate)} ${t("per_second")}` : ""}${progress.eta != null ? ` · ${t("left", { time: duration(progress.eta) })}` : ""}
    </p>
  </div>`;
}

export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

export const when = (time) => new Date(time).toLocaleString(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });

// A record, kept up to date by its events until it has ended.
export function useRecord(path) {
  const [record, setRecord] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    const stop = new AbortController();
    setRecord(null);
    setError(null);
    let [seen, again] = ["", 0];
    const load = () => {
      clearTimeout(again);
      return api.get(path).then((found) => { if (!stop.signal.aborted) { setRecord(found); setError(null); } }, (refused) => {
        if (stop.signal.aborted) return;
        setError(refused);
        if (api.passes(refused)) again = setTimeout(load, api.AGAIN);
      });
    };
    load().then(() => api.events(`${path}/events`, (event) => {
      // How it ended comes whole, with its result.
      if (!ENDED.includes(event.state)) setRecord((before) => before && { ...before, state: event.state, progress: event.progress || before.progress, counts: event.counts || before.counts });
      const facts = `${event.state} ${event.progress?.stage} ${Math.floor((event.progress?.completed || 0) / 25)}`;
      if (facts !== seen && !ENDED.includes(event.state)) load();
      seen = facts;
    }, stop.signal)).then(() => { if (!stop.signal.aborted) load(); });
    return () => { stop.abort(); clearTimeout(again); };
  }, [path]);
  // What is known stays in sight while the server cannot be asked.
  return [record, record && error && api.passes(error) ? null : error, setRecord];
}

// An action that runs once at a time: a second click while it runs does nothing. Returns how to run one, whether one runs, why the last was refused, and how to say so.
export function useAction() {
  const [busy, setBusy] = useState(false);
  const [refused, setRefused] = useState(null);
  const running = useRef(false);
  const run = async (action) => {
    if (running.current) return;
    running.current = true;
    setBusy(true);
    setRefused(null);
    try { await action(); } catch (problem) { setRefused(problem); }
    running.current = false;
    setBusy(false);
  };
  return [run, busy, refused, setRefused];
}

// A list that is asked for again every few seconds while something in it goes on.
export function useList(path) {
  const [data, setData] = useState(null);
  const [error, setError] = useState(null);
  const [round, setRound] = useState(0);
  useEffect(() => {
    let alive = true;
    let timer = 0;
    const load = async () => {
      try {
        const found = await api.all(path, 100);
        if (!alive) return;
        setData(found);
        setError(null);
        if (found.some((record) => !ENDED.includes(record.state))) timer = setTimeout(load, api.AGAIN);
      } catch (refused) {
        if (!alive) return;
        setError(refused);
        if (api.passes(refused)) timer = setTimeout(load, api.AGAIN);
      }
    };
    load();
    return () => { alive = false; clearTimeout(timer); };
  }, [path, round]);
  return [data, error, () => setRound((before) => before + 1)];
}

// A curve of [x, y] points.
export function Curve({ points, label }) {
  if (points.length < 2) return null;
  const [w, h, left, bottom] = [560, 180, 52, 24];
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  const px = (x) => left + ((x - x0) / (x1 - x0 || 1)) * (w - left - 8);
  const py = (y) => 8 + (1 - (y - y0) / (y1 - y0 || 1)) * (h - bottom - 16);
  const line = points.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`).join(" ");
  return html`<figure class="curve"><figcaption>${label}</figcaption>
    <svg viewBox="0 0 ${w} ${h}" role="img" aria-label=${`${label}: ${number(ys[0])} → ${number(ys[ys.length - 1])}`}>
      <line class="axis" x1=${left} y1=${h - bottom} x2=${w - 8} y2=${h - bottom} /><line class="axis" x1=${left} y1="8" x2=${left} y2=${h - bottom} />
      <text x=${left - 6} y="16" text-anchor="end">${number(y1)}</text><text x=${left - 6} y=${h - bottom} text-anchor="end">${number(y0)}</text>
      <text x=${left} y=${h - 6}>${x0}</text><text x=${w - 8} y=${h - 6} text-anchor="end">${x1}</text>
      <polyline points=${line} />
    </svg></figure>`;
}

// A dialog that closes with Escape and gives the focus back; `onClose` may keep it open, `onKey` hears all other keys.
export function Dialog({ title, onClose, onKey = () => {}, children, wide = false }) {
  const dialog = useRef();
  // Keys are its own as soon as it is there.
  useLayoutEffect(() => {
    const before = document.activeElement;
    dialog.current.showModal();
    // Once it is gone, and where nothing else has taken the focus.
    return () => queueMicrotask(() => { if (document.activeElement === document.body) before?.focus?.(); });
  }, []);
  const pressed = (event) => {
    if (event.key !== "Escape") { onKey(event); return; }
    event.preventDefault();
    onClose();
  };
  // Asked twice in a row, a browser closes a dialog without leave.
  return html`<dialog ref=${dialog} class=${wide ? "wide" : ""} aria-label=${title} onKeyDown=${pressed} onCancel=${(event) => { event.preventDefault(); onClose(); }} onClose=${() => dialog.current?.showModal()}>
    <article><header><button type="button" class="shut" aria-label=${t("close")} onClick=${onClose}>×</button><h2>${title}</h2></header>${children}</article>
  </dialog>`;
}

// What a base model recommends, method by method, as far as it is known; `name` is empty for the server's own choice.
export function useRecommended(name) {
  const [bases, setBases] = useState([]);
  useEffect(() => {
    let alive = true;
    let again;
    const load = () => api.get("bases").then(({ data }) => {
      if (!alive) return;
      setBases(data);
      if (!data.length) again = setTimeout(load, 2000); // the workers are starting
    }, () => {});
    load();
    return () => { alive = false; clearTimeout(again); };
  }, []);
  return bases.find((base) => (name ? base.name === name : base.default)) || { recommended: {} };
}

// An input for an option that the API describes; empty means what is recommended, otherwise its default.
export function OptionInput({ option, kind, recommended = {}, value, onChange }) {
  const id = `option-${option.name}`;
  const schema = option.value_schema.anyOf ? option.value_schema.anyOf[0] : option.value_schema;
  const described = `${id}-help`;
  const set = (event) => onChange(event.target.value === "" ? undefined : event.target.value);
  const standard = shown(recommended[option.name] ?? option.default);
  let input;
  if (schema.enum || schema.type === "boolean") {
    const values = schema.enum || ["true", "false"];
    input = html`<select id=${id} aria-describedby=${described} value=${value ?? ""} onChange=${set}>
      <option value="">${t("default_is", { value: standard })}</option>
      ${values.map((each) => html`<option value=${each}>${schema.enum ? each : t(each === "true" ? "yes" : "no")}</option>`)}
    </select>`;
  } else {
    const numeric = ["integer", "number"].includes(schema.type);
    input = html`<input id=${id} aria-describedby=${described} type=${numeric ? "number" : "text"} step=${schema.type === "integer" ? 1 : "any"}
      min=${schema.minimum} max=${schema.maximum} value=${value ?? ""} placeholder=${t("default_is", { value: standard })} onInput=${set} />`;
  }
  return html`<div class="option"><label for=${id}>${option.name.replaceAll("_", " ")}</label>${input}<small id=${described}>${optionHelp(option, kind)}</small></div>`;
}

function shown(value) {
  if (value === null || value === undefined) return t("by_base");
  if (value === true || value === false) return t(value ? "yes" : "no");
  return Array.isArray(value) ? value.join(", ") : String(value);
}

// The values of options as JSON wants them; the API checks them.
export function asJson(options, values) {
  const found = {};
  for (const option of options) {
    const value = values[option.name];
    if (value === undefined) continue;
    const schema = option.value_schema.anyOf ? option.value_schema.anyOf[0] : option.value_schema;
    if (schema.type === "boolean") found[option.name] = value === "true";
    else if (["integer", "number"].includes(schema.type)) found[option.name] = Number(value);
    else if (schema.type === "array") found[option.name] = value.split(/[\s,;]+/).filter(Boolean).map(Number);
    else found[option.name] = value;
  }
  return found;
}

// The outline of a mask over the picture, as wide on every screen; `fill` says how opaque its inside is, 0–255.
export function Outline({ source, fill = 0 }) {
  const canvas = useRef();
  useEffect(() => {
    let alive = true;
    const picture = new Image();
    picture.onload = () => {
      if (!alive || !canvas.current) return; // closed before the mask had come
      const scale = Math.min(1, 900 / Math.max(picture.width, picture.height)) * (Math.max(picture.width, picture.height) < 450 ? 2 : 1);
      const [w, h] = [Math.round(picture.width * scale), Math.round(picture.height * scale)];
      Object.assign(canvas.current, { width: w, height: h });
      const pen = canvas.current.getContext("2d", { willReadFrequently: true });
      pen.drawImage(picture, 0, 0, w, h);
      const { data } = pen.getImageData(0, 0, w, h);
      const line = pen.createImageData(w, h);
      const inside = (x, y) => x >= 0 && y >= 0 && x < w && y < h && data[4 * (y * w + x)] > 127;
      const beside = (x, y) => inside(x - 1, y) || inside(x + 1, y) || inside(x, y - 1) || inside(x, y + 1);
      for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) line.data.set([255, 0, 160, inside(x, y) ? fill : beside(x, y) ? 255 : 0], 4 * (y * w + x));
      pen.putImageData(line, 0, 0);
    };
    picture.src = source;
    return () => { alive = false; };
  }, [source]);
  return html`<canvas ref=${canvas} aria-hidden="true"></canvas>`;
}

// What JSON says instead of bytes.
export async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

// A labelled input with a sentence on what it is for.
export function Field({ id, label, help, ...input }) {
  return html`<div class="field"><label for=${id}>${label}</label><input id=${id} aria-describedby=${help && `${id}-help`} ...${input} />${help && html`<small id=${`${id}-help`}>${help}</small>`}</div>`;
}
