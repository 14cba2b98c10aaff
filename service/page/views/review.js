// Every pair of a job: look, approve, reject, change the mask; the approved ones become a dataset.
import * as api from "../api.js";
import { decidedPairs, readDecisions, saveAs, stored, useDecisions } from "../decisions.js";
import { language, number, t } from "../texts.js";
import { asDefects, spread, sum } from "../types.js";
import { base64, Component, Dialog, ENDED, Failed, Field, goAfter, html, Outline, Picture, Progress, Refused, Send, useAction, useEffect, useLayoutEffect, useMemo, useRecord, useRef, useState, useUnsent } from "../ui.js";
import { Formats } from "./jobs.js";
import { Painter } from "./painter.js";

const score = (pair) => (pair.scores.score ?? 0).toFixed(2);
const TILE = { width: 184, height: 236 };
const GAP = 8;
const AHEAD = 2;
const DELAY = 60;

// The jobs of a review that still exist, in the order in which they were asked for: a first one, whose id the review has, and those that follow it to
// replace rejected pairs. Asked for by the id of another one, the first is told. `job` has the id, or is null where it was deleted.
async function seriesOf(id, job) {
  if (job?.request.selection) return { first: id, series: [job] };
  const first = job?.request.follows?.first_job_id ?? id;
  const all = await api.all(job ? `jobs?adapter_id=${job.adapter_id}` : "jobs", 100);
  const others = all.filter((other) => other.id !== id && (other.id === first || other.request.follows?.first_job_id === first));
  const series = [...(job ? [job] : []), ...others].sort((a, b) => (a.id < b.id ? -1 : 1));
  if (!series.length) await api.get(`jobs/${id}`); // says that there is none
  return { first, series };
}

// The jobs that others of a series go on after, and that were deleted.
function goneOf(first, series) {
  const named = [first, ...series.map((job) => job.request.follows?.job_id)].filter(Boolean);
  return [...new Set(named)].filter((id) => !series.some((job) => job.id === id));
}

// The pairs of jobs, or their rejected candidates, numbered through.
async function pairsOf(jobs, rejected = false) {
  const found = [];
  for (const job of jobs) found.push(...named(job, await api.all(`jobs/${job}/pairs${rejected ? "?rejected=true" : ""}`, 1000)));
  return rejected ? found : numbered(found);
}

const named = (job, pairs) => pairs.map((pair) => ({ ...pair, job, key: `${job}/${pair.candidate}`, name: pair.candidate }));
const numbered = (pairs) => pairs.map((pair, name) => ({ ...pair, name }));

const FIRST = 60; // pairs that are shown before the others have come

export function Review({ id }) {
  const [series, setSeries] = useState(null);
  const [pairs, setPairs] = useState(null);
  const [error, setError] = useState(null);
  const [run, busy, refused] = useAction();
  const { decisions, decide, take, saved } = useDecisions(id);
  useUnsent(() => !saved);
  const [order, setOrder] = useState("made");
  const [filter, setFilter] = useState("all");
  const [outlines, setOutlines] = useState(true);
  const [open, setOpen] = useState(null);
  const [painting, setPainting] = useState(null);
  const [, redraw] = useState(null);
  const [reviewer, setReviewer] = useState(localStorage.getItem("pairforge-reviewer") || "");
  const [formats, setFormats] = useState(new Set());
  const [names, setNames] = useState([]);
  const [rejected, setRejected] = useState([]);
  const [learned, setLearned] = useState([]);
  const alive = useRef(true);
  const here = useRef({ key: null, index: 0 }); // the pair that keys mean, and where it is or was

  const load = async () => {
    if (!alive.current) return;
    try {
      const job = await api.get(`jobs/${id}`).catch((problem) => { if (problem.status === 404) return null; throw problem; });
      // Pairs of a job that follows another are decided on in the review of the first.
      if (!pairs && job && !job.request.follows) api.get(`jobs/${id}/pairs?limit=${FIRST}`).then(({ data }) => setPairs((known) => known || numbered(named(id, data))), () => {});
      const { first, series: found } = await seriesOf(id, job);
      if (!alive.current) return;
      if (first !== id) { location.replace(`#/jobs/${first}/review`); return; }
      const made = found.filter(({ state: reached }) => reached === "succeeded").map((each) => each.id);
      setPairs(await pairsOf(made));
      setLearned((await api.get(`adapters/${found[0].adapter_id}`).catch(() => ({ defects: [] }))).defects); // one that was deleted makes no more
      setSeries(found);
      setRejected(await pairsOf(made, true));
      setError(null);
    } catch (problem) {
      setError(problem);
      if (api.passes(problem)) setTimeout(load, api.AGAIN);
    }
  };
  useEffect(() => {
    load();
    api.get("options").then((found) => setNames(found.formats), () => {});
    return () => { alive.current = false; };
  }, []);
  useEffect(() => { if (series) setFormats(new Set(series[0].request.formats)); }, [series === null]);

  const state = (pair) => decisions.get(pair.key)?.decision || "open";
  const reasons = useMemo(() => [...new Set(rejected.flatMap((pair) => pair.reasons))].sort(), [rejected]);
  const types = useMemo(() => [...new Set((pairs || []).map((pair) => pair.defect).filter(Boolean))].sort(), [pairs]);
  const [kind, wanted] = filter.includes(":") ? [filter.slice(0, filter.indexOf(":")), filter.slice(filter.indexOf(":") + 1)] : [filter, null];
  const decided = ["open", "approved", "rejected"].includes(kind);
  const shown = useMemo(() => {
    const all = kind === "reason" ? rejected.filter((pair) => pair.reasons.includes(wanted))
      : (pairs || []).filter((pair) => (kind === "type" ? pair.defect === wanted : kind === "all" || state(pair) === kind));
    const sign = order === "score_down" ? -1 : 1;
    return order === "made" ? all : [...all].sort((a, b) => sign * ((a.scores.score ?? 0) - (b.scores.score ?? 0)) || a.name - b.name);
  }, [pairs, rejected, filter, order, decided ? decisions : null]);

  const places = useMemo(() => new Map(shown.map((pair, index) => [pair.key, index])), [shown]);
  // A pair that has left the list leaves its place to the next one, the last one to the one before it.
  const index = places.get(here.current.key) ?? Math.max(0, Math.min(here.current.index, shown.length - 1));
  here.current = { key: shown[index]?.key ?? null, index };

  if (error && !(series && api.passes(error))) return html`<${Refused} error=${error} />`;
  if (!pairs) return html`<p aria-busy="true"></p>`;
  const approved = pairs.filter((pair) => state(pair) === "approved");
  const left = pairs.filter((pair) => state(pair) === "rejected").length;
  const undecided = pairs.length - approved.length - left;
  const readOnly = kind === "reason";
  const opened = open === null ? null : shown[places.get(open)] ?? pairs.find((pair) => pair.key === open) ?? null;
  const source = series?.find(({ state: reached }) => reached === "succeeded");
  const gone = series ? goneOf(id, series) : [];
  // Whether it is decided so; a mask that somebody has drawn goes with its decision.
  const set = (pair, decision) => {
    if (readOnly || (decision === null && decisions.get(pair.key)?.mask && !confirm(t("strokes_really")))) return false;
    decide([pair.key], decision === null ? null : { decision });
    return true;
  };

  const selection = () => ({ reviewer, approved: decidedPairs(pairs, decisions, "approved"), formats: [...formats] });
  const loadDecisions = async (file) => {
    const read = await readDecisions(file, id);
    const known = new Map([...read.found].filter(([key]) => pairs.some((pair) => pair.key === key)));
    const taken = take(known);
    if (typeof read.reviewer === "string" && read.reviewer) setReviewer(read.reviewer);
    if (Array.isArray(read.formats)) setFormats(new Set(read.formats.filter((name) => names.includes(name))));
    return { taken, kept: known.size - taken, unknown: read.found.size - known.size };
  };
  const deliver = (event) => {
    event.preventDefault();
    stored("pairforge-reviewer", reviewer);
    run(() => goAfter(api.post(`jobs/${source.id}/selections`, selection()), (job) => `#/jobs/${job.id}`));
  };
  const paint = (pair) => run(async () => {
    const own = decisions.get(pair.key)?.mask;
    const fetched = (name) => api.blob(`jobs/${pair.job}/pairs/${pair.candidate}/${name}`);
    const image = await fetched("image");
    const mask = own ? new Blob([Uint8Array.from(atob(own), (c) => c.charCodeAt(0))], { type: "image/png" }) : await fetched("mask");
    setPainting({ pair, image, mask });
  });
  const painted = async (blob) => {
    decide([painting.pair.key], { decision: "approved", mask: await base64(blob) });
    setPainting(null);
  };
  // Keys come faster than the page is drawn, so the place is kept beside it.
  const move = (next) => {
    const to = Math.max(0, Math.min(shown.length - 1, next));
    here.current = { key: shown[to]?.key ?? null, index: to };
    redraw(here.current.key);
  };
  // To another large pair; where the open one has left the list, the next one is at its place.
  const step = (by) => { move(here.current.index + (places.has(open) ? by : Math.min(by, 0))); setOpen(here.current.key); };
  const decideOpened = (decision) => {
    if (!set(opened, decision) || !decided || kind === (decision ?? "open") || !places.has(open)) return;
    if (shown.length === 1) setOpen(null);
    else step(places.get(open) === shown.length - 1 ? -1 : 1);
  };
  const keys = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [pressed, pair] = [event.key.toLowerCase(), shown[here.current.index]];
    if (!pair) return;
    if (pressed === "a" || pressed === "r") { set(pair, pressed === "a" ? "approved" : "rejected"); move(here.current.index + 1); }
    else if (pressed === "u") set(pair, null);
    else if (pressed === "t" && !readOnly) paint(pair);
    else return;
    event.preventDefault();
  };

  return html`<div><div class="title"><h1>${t("review")}</h1><div class="actions"><a role="button" class="secondary outline" href=${`#/jobs/${series ? series[0].id : id}`}>${t("back_to_job")}</a></div></div>
    <p role="status" class="sum">${t("approved_of", { n: approved.length, r: left, u: undecided, all: pairs.length })}</p>
    <form class="bar" onSubmit=${(event) => event.preventDefault()}>
      <label>${t("filter")} <select value=${filter} onChange=${(event) => { setFilter(event.target.value); here.current = { key: null, index: 0 }; }}>
        ${["all", "open", "approved", "rejected"].map((name) => html`<option value=${name}>${t(name)}</option>`)}
        ${types.length > 1 && html`<optgroup label=${t("types")}>${types.map((type) => html`<option value=${`type:${type}`}>${type}</option>`)}</optgroup>`}
        ${reasons.length > 0 && html`<optgroup label=${t("rejected_reasons")}>${reasons.map((reason) => html`<option value=${`reason:${reason}`}>${t(`reason_${reason}`)}</option>`)}</optgroup>`}</select></label>
      <label>${t("order")} <select value=${order} onChange=${(event) => setOrder(event.target.value)}>${["made", "score_down", "score_up"].map((name) => html`<option value=${name}>${t(`order_${name}`)}</option>`)}</select></label>
      <label class="choice"><input type="checkbox" checked=${outlines} onChange=${(event) => setOutlines(event.target.checked)} /> ${t("outlines")}</label>
      ${!readOnly && html`<button type="button" class="small outline" disabled=${!series} onClick=${() => decide(shown.filter((pair) => state(pair) === "open").map((pair) => pair.key), { decision: "approved" })}>${t("all_of_them")}</button>`}
    </form>
    ${gone.length > 0 && html`<p role="status" class="note">${t("review_gone", { jobs: gone.join(", ") })}</p>`}
    <p id="review-help"><small>${t("review_help")}</small></p><${Refused} error=${refused} />
    ${!saved && html`<p role="alert" class="refusal">${t("not_kept")}</p>`}
    ${shown.length ? html`<${Grid} pairs=${shown} state=${state} decisions=${decisions} outlines=${outlines} at=${index} here=${here} onAt=${move} onOpen=${setOpen} onKey=${keys} onDecide=${set} readOnly=${readOnly} paused=${Boolean(opened || painting)} />` : html`<p>${t("no_pairs_here")}</p>`}
    ${series && !series[0].request.selection && html`<${Replacements} series=${series} types=${learned} pairs=${pairs} state=${state} onChange=${load} />`}
    <${DecisionsFile} disabled=${!series} onSave=${() => saveAs(`${id}-review.json`, { ...selection(), rejected: decidedPairs(pairs, decisions, "rejected") })} onLoad=${loadDecisions} />
    <form class="deliver" onSubmit=${deliver}>
      <h2>${t("delivered")}</h2><p>${t("selection_help", { n: approved.length })}</p>
      <${Field} id="reviewer" label=${t("reviewer")} help=${t("reviewer_help")} required maxlength="80" value=${reviewer} onInput=${(event) => setReviewer(event.target.value)} />
      <${Formats} names=${names} chosen=${formats} onChange=${setFormats} />
      <${Send} id="deliver" label=${t("delivered")} busy=${busy || !source} why=${approved.length ? "" : t("why_approved")} />
    </form>
    ${opened && html`<${Large} key=${opened.key} pair=${opened} decision=${decisions.get(opened.key)} readOnly=${readOnly} onDecide=${decideOpened} onMove=${step} onPaint=${() => paint(opened)} onClose=${() => setOpen(null)} />`}
    ${painting && html`<${Painter} title=${t("mask_of", { n: painting.pair.name })} image=${painting.image} mask=${painting.mask} onMask=${painted} onBroken=${() => setPainting(null)} onClose=${() => setPainting(null)} />`}</div>`;
}

// New pairs for the rejected ones: as many as are missing, of each type where there are several, asked for again and again until enough are approved.
function Replacements({ series, types, pairs, state, onChange }) {
  const [{ request }] = series;
  const typed = types.length > 1;
  const [goal, setGoal] = useState(typed ? { ...spread(0, types), ...(request.defects || spread(request.num_pairs, types)) } : { "": request.num_pairs });
  const [run, busy, refused] = useAction();
  const running = series.filter((job) => !ENDED.includes(job.state));
  const last = series.filter((job) => job.state === "succeeded").at(-1);
  const of = (type, reached) => pairs.filter((pair) => (!typed || pair.defect === type) && state(pair) === reached).length;
  const lacking = Object.fromEntries(Object.entries(goal).map(([type, count]) => [type, Math.max(0, Number(count) - of(type, "approved") - of(type, "open"))]));
  const missing = sum(lacking);
  const replace = (event) => {
    event.preventDefault();
    run(async () => {
      // A refusal may tell of new pairs that were asked for elsewhere.
      await api.post(`jobs/${last.id}/replacements`, { num_pairs: missing, ...(typed ? { defects: asDefects(lacking) } : {}) }).finally(onChange);
    });
  };
  return html`<form class="deliver" onSubmit=${replace}><h2>${t("replacements")}</h2>
    <${Refused} error=${refused} />
    <div class=${typed ? "three" : ""}>${Object.entries(goal).map(([type, count], at) => html`<div key=${type}>
      <${Field} id=${`wanted-${at}`} label=${typed ? t("wanted_type", { type }) : t("wanted")} help=${typed ? undefined : t("wanted_help")} type="number" min=${typed ? 0 : 1} required value=${count} onInput=${(event) => setGoal({ ...goal, [type]: event.target.value })} />
      <p role="status">${t("missing", { n: lacking[type], a: of(type, "approved"), u: of(type, "open") })}</p></div>`)}</div>
    ${typed && html`<p><small>${t("wanted_help")}</small></p>`}
    ${running.map((job) => html`<${Following} key=${job.id} id=${job.id} onEnd=${onChange} />`)}
    ${series.at(-1).state === "failed" && html`<${Failed} record=${series.at(-1)} />`}
    <${Send} id="replace" label=${t(missing === 1 ? "replace_one" : "replace", { n: missing })} busy=${busy} why=${running.length ? t("why_running") : !last ? t("why_no_job") : missing ? "" : t("why_missing")} /></form>`;
}

// The decisions so far as a file, for another browser, a colleague or a script.
function DecisionsFile({ disabled, onSave, onLoad }) {
  const [run, busy, refused] = useAction();
  const [loaded, setLoaded] = useState(null);
  const load = (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    setLoaded(null);
    if (file) run(async () => setLoaded(await onLoad(file)));
  };
  return html`<section class="deliver" aria-labelledby="decisions"><h2 id="decisions">${t("decisions")}</h2><p>${t("decisions_help")}</p>
    <${Refused} error=${refused} />
    ${loaded && html`<p role="status">${t("decisions_loaded", { n: loaded.taken })} ${loaded.kept > 0 && t("decisions_newer", { n: loaded.kept })} ${loaded.unknown > 0 && t("decisions_unknown", { n: loaded.unknown })}</p>`}
    <button type="button" class="outline" disabled=${disabled} onClick=${onSave}>${t("decisions_save")}</button>
    <div class="field"><label for="decisions-file">${t("decisions_load")}</label><input id="decisions-file" type="file" accept=".json,application/json" disabled=${disabled || busy} onChange=${load} /></div></section>`;
}

// A job that makes new pairs while the others are reviewed.
function Following({ id, onEnd }) {
  const [job] = useRecord(`jobs/${id}`);
  useEffect(() => { if (job && ENDED.includes(job.state)) onEnd(); }, [job?.state]);
  return job && html`<div><p><a href=${`#/jobs/${id}`}>${t(job.request.num_pairs === 1 ? "replacing_one" : "replacing", { n: job.request.num_pairs })}</a></p><${Progress} record=${job} /></div>`;
}

// Only the rows in sight are in the document.
function Grid({ pairs, state, decisions, outlines, at, here, onAt, onOpen, onKey, onDecide, readOnly, paused }) {
  const box = useRef();
  const [view, setView] = useState({ top: 0, height: 600, width: 920, columns: 5 });
  const wanted = useRef(false);
  useLayoutEffect(() => {
    const measure = () => setView({ top: box.current.scrollTop, height: box.current.clientHeight, width: box.current.clientWidth, columns: Math.max(1, Math.floor((box.current.clientWidth + GAP) / TILE.width)) });
    const watcher = new ResizeObserver(measure);
    watcher.observe(box.current);
    measure();
    return () => watcher.disconnect();
  }, []);
  const { columns } = view;
  const rows = Math.ceil(pairs.length / columns);
  const first = Math.max(0, Math.floor(view.top / TILE.height) - AHEAD);
  const last = Math.min(rows, Math.ceil((view.top + view.height) / TILE.height) + AHEAD);
  const focused = Math.min(at, pairs.length - 1);
  // Also the one that a Tab comes to, wherever it is.
  const visible = pairs.slice(first * columns, last * columns).map((_, offset) => first * columns + offset);
  if (!visible.includes(focused)) visible.push(focused);
  useLayoutEffect(() => {
    if (!wanted.current || paused) return;
    const top = Math.floor(focused / columns) * TILE.height;
    if (top < box.current.scrollTop) box.current.scrollTop = top;
    if (top + TILE.height > box.current.scrollTop + view.height) box.current.scrollTop = top + TILE.height - view.height;
    box.current.querySelector(`[data-index="${focused}"] .open`)?.focus({ preventScroll: true });
  }, [pairs[focused]?.key, focused, paused]);
  const on = useRef({});
  Object.assign(on.current, { at: paused ? () => {} : onAt, open: onOpen, key: onKey, decide: onDecide });
  const move = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -pairs.length, End: pairs.length, PageDown: columns * 3, PageUp: -columns * 3 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    wanted.current = true;
    onAt(here.current.index + step);
  };
  return html`<div class="grid" ref=${box} style=${{ height: `min(72vh, 900px, ${rows * TILE.height + GAP}px)` }} onKeyDown=${move} onFocusIn=${() => { wanted.current = true; }} onFocusOut=${(event) => { if (!paused && !box.current?.contains(event.relatedTarget) && event.relatedTarget) wanted.current = false; }}
    onScroll=${() => setView((before) => (Math.abs(before.top - box.current.scrollTop) < TILE.height / 2 && box.current.scrollTop > 0 ? before : { ...before, top: box.current.scrollTop }))}>
    <ul style=${{ height: `${rows * TILE.height}px` }} aria-describedby="review-help">
      ${visible.map((index) => {
        const pair = pairs[index];
        const [left, top] = [Math.floor((index % columns) * (view.width / columns)), Math.floor(index / columns) * TILE.height];
        return html`<${Tile} key=${pair.key} pair=${pair} index=${index} left=${left} top=${top} count=${pairs.length} own=${readOnly ? "rejected" : state(pair)} changed=${!!decisions.get(pair.key)?.mask}
          picture=${outlines ? "outline" : "thumbnail"} focusable=${index === focused} readOnly=${readOnly} language=${language()} on=${on} />`;
      })}
    </ul></div>`;
}

// One pair; drawn again when something of it has changed, and not because others came into sight.
class Tile extends Component {
  shouldComponentUpdate(next) {
    return Object.keys(next).some((name) => next[name] !== this.props[name]);
  }

  render({ pair, index, left, top, count, own, changed, picture, focusable, readOnly, on }) {
    const label = [t("pair_state", { n: pair.name, score: score(pair), state: t(own) }), pair.defect].filter(Boolean).join(", ");
    const choice = (name, action, decision, sign) => html`<button type="button" tabindex="-1" aria-pressed=${own === decision} aria-label=${`${action}: ${t("pair", { n: pair.name })}`} class=${name}
      onClick=${() => { on.current.at(index); on.current.decide(pair, own === decision ? null : decision); }}>${sign}</button>`;
    return html`<li data-index=${index} class="tile ${own}" aria-setsize=${count} aria-posinset=${index + 1} style=${{ transform: `translate(${left}px, ${top}px)` }}>
      <button type="button" class="open" tabindex=${focusable ? 0 : -1} aria-label=${label} onFocus=${() => on.current.at(index)} onClick=${() => on.current.open(pair.key)} onKeyDown=${(event) => on.current.key(event)}>
        <${Picture} path=${`jobs/${pair.job}/pairs/${pair.candidate}/${picture}`} alt="" delay=${DELAY} /></button>
      <p><span>${pair.name}</span> <span class="kind">${pair.defect}</span> <span>${score(pair)}</span>${changed ? html` <span title=${t("touched_up")}>✎</span>` : ""}</p>
      ${readOnly ? html`<small>${pair.reasons.map((reason) => t(`reason_${reason}`)).join(", ")}</small>` : html`<div class="choose">
        ${choice("yes", t("accept"), "approved", "✓")}${choice("no", t("reject"), "rejected", "✗")}</div>`}
    </li>`;
  }
}

function Large({ pair, decision, readOnly, onDecide, onMove, onPaint, onClose }) {
  const base = `jobs/${pair.job}/pairs/${pair.candidate}`;
  const [detail, setDetail] = useState(null);
  const [mask, setMask] = useState(null);
  const [share, setShare] = useState(100);
  const [outline, setOutline] = useState(true);
  useEffect(() => { api.get(base).then(setDetail, () => {}); }, [base]);
  useEffect(() => { if (decision?.mask) setMask(`data:image/png;base64,${decision.mask}`); else api.picture(`${base}/mask`).then(setMask, () => {}); }, [base, decision?.mask]);
  const { name } = pair;
  const own = readOnly ? "rejected" : decision?.decision || "open";
  const keys = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.type === "range" && event.key.startsWith("Arrow")) return; // they move the slider
    const action = { arrowright: () => onMove(1), arrowleft: () => onMove(-1), a: () => onDecide("approved"), r: () => onDecide("rejected"), u: () => onDecide(null), o: () => setOutline(!outline), t: () => !readOnly && onPaint() }[event.key.toLowerCase()];
    if (action) { event.preventDefault(); action(); }
  };
  return html`<${Dialog} title=${t("pair", { n: name })} onClose=${onClose} onKey=${keys} wide=${true}><div class="large">
    <div class="picture"><div class="stack">
      ${pair.normal && html`<${Picture} path=${`${base}/good-part`} alt=${t("good_part")} />`}
      <span class=${pair.normal ? "over" : ""} style=${pair.normal ? { clipPath: `inset(0 ${100 - share}% 0 0)` } : {}}><${Picture} path=${`${base}/image`} alt=${t("image_of", { n: name })} />${outline && mask && html`<${Outline} source=${mask} />`}</span>
      ${pair.normal && share > 0 && share < 100 && html`<span class="split" style=${{ left: `${share}%` }}></span>`}</div>
      ${pair.normal && html`<label>${t("compare")}<input type="range" min="0" max="100" value=${share} onInput=${(event) => setShare(Number(event.target.value))} /></label>`}
      <label class="choice"><input type="checkbox" checked=${outline} onChange=${() => setOutline(!outline)} /> ${t("outline")} (O)</label>
    </div>
    <div class="side">
      <div class="actions"><button type="button" class="small outline secondary" onClick=${() => onMove(-1)}>← ${t("previous")}</button><button type="button" class="small outline secondary" onClick=${() => onMove(1)}>${t("next")} →</button>
        <span class="state ${own === "approved" ? "succeeded" : own === "rejected" ? "failed" : ""}">${t(own)}</span> ${decision?.mask ? t("touched_up") : ""}</div>
      ${pair.reasons.map((reason) => html`<p>${t(`reason_${reason}`)}</p>`)}
      <p><strong>${t("score")} ${score(pair)}</strong>${pair.defect ? html`<br />${t("type")}: ${pair.defect}` : ""}${pair.normal ? html`<br /><small>${t("background_on", { name: pair.normal })}</small>` : ""}</p>
      ${!readOnly && html`<div class="actions"><button type="button" onClick=${() => onDecide("approved")}>${t("accept")} (A)</button><button type="button" class="secondary" onClick=${() => onDecide("rejected")}>${t("reject")} (R)</button>
        <button type="button" class="outline" onClick=${onPaint}>${t("take_mask")} (T)</button>${own !== "open" && html`<button type="button" class="outline secondary" onClick=${() => onDecide(null)}>${t("take_back")} (U)</button>`}</div>`}
      <div class="pictures"><figure><${Picture} path=${`${base}/mask`} alt=${t("mask_of", { n: name })} /><figcaption>${t("mask")} ${pair.mask_fraction != null ? `${number(100 * pair.mask_fraction)} %` : ""}</figcaption></figure>
        ${detail?.nearest_real && html`<figure><${Picture} path=${`${base}/nearest-real`} alt=${t("looks_like", { name: detail.nearest_real.name })} /><figcaption>${t("looks_like", { name: detail.nearest_real.name })}, ${t("likeness", { n: number(detail.nearest_real.likeness) })}</figcaption></figure>`}</div>
      <details><summary>${t("scores")}</summary><dl class="facts">${Object.entries(pair.scores).map(([key, value]) => html`<dt>${key.replaceAll("_", " ")}</dt><dd>${value == null ? "–" : number(value)}</dd>`)}</dl></details>
    </div></div><//>`;
}
