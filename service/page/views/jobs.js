// The list of jobs, a new job, and one job.
import * as api from "../api.js";
import { percent, size, t } from "../texts.js";
import { asDefects, spread, sum } from "../types.js";
import { asJson, ENDED, Failed, Field, goAfter, html, OptionInput, Picture, Progress, Refused, Send, State, useAction, useEffect, useList, useRecommended, useRecord, useState, useUnsent, when } from "../ui.js";
import { Places, regions } from "./places.js";

const COUNT = 100; // pairs that an untouched form asks for

export function JobsView() {
  const [jobs, error] = useList("jobs");
  const [adapters] = useList("adapters");
  const name = (id) => adapters?.find((adapter) => adapter.id === id)?.name || id.slice(0, 12);
  return html`<div><div class="title"><h1>${t("jobs")}</h1></div>
    <${Refused} error=${error} />
    ${jobs?.length === 0 && html`<p>${t("no_jobs")}</p>`}
    ${jobs?.length > 0 && html`<div class="scroll"><table>
      <thead><tr><th scope="col">${t("job")}</th><th scope="col">${t("pairs")}</th><th scope="col">${t("state")}</th><th scope="col">${t("created")}</th></tr></thead>
      <tbody>${jobs.map((job) => html`<tr key=${job.id}><td><a href=${`#/jobs/${job.id}`}>${name(job.adapter_id)}</a> <small>${job.request.selection ? t("selection_of", { by: job.request.selection.by }) : job.request.follows ? t("follows") : `${t("seed")} ${job.request.seed}`}</small></td>
        <td>${job.counts?.accepted ?? 0} / ${job.request.num_pairs}</td><td><${State} state=${job.state} /></td><td>${when(job.created_at)}</td></tr>`)}</tbody></table></div>`}</div>`;
}

export function NewJob({ adapter: id }) {
  const [adapter, error] = useRecord(`adapters/${id}`);
  const [options, setOptions] = useState(null);
  const [fields, setFields] = useState({ count: String(COUNT), seed: "" });
  const [formats, setFormats] = useState(new Set());
  const [chosen, setChosen] = useState({});
  const [asked, setAsked] = useState(null);
  const [places, setPlaces] = useState([]);
  const [limits, setLimits] = useState({});
  const [evaluates, setEvaluates] = useState(false);
  const [measured, setMeasured] = useState({});
  const [run, busy, refused, setRefused] = useAction();
  const base = useRecommended(adapter?.request.base);
  useUnsent(() => places.length > 0);
  useEffect(() => { api.get("options").then(setOptions, setRefused); }, []);
  if (error) return html`<${Refused} error=${error} />`;
  if (!adapter || !options) return html`<p aria-busy="true"></p>`;
  const own = options.methods.find((method) => method.name === (adapter.request.method || options.default_method));
  const sampling = own.sampling.filter((option) => option.name !== "seed");
  const bounded = sampling.some((option) => option.name === "region");
  const typed = adapter.defects.length > 1;
  const counts = asked || spread(COUNT, adapter.defects);
  const start = (event) => {
    event.preventDefault();
    const body = { adapter_id: id, ...(typed ? { defects: asDefects(counts) } : { num_pairs: Number(fields.count) }), formats: [...formats], ...asJson(sampling, chosen), ...regions(places) };
    if (fields.seed !== "") body.seed = Number(fields.seed);
    if (Object.values(limits).some((value) => value !== undefined)) body.limits = asJson(options.limits, limits);
    if (evaluates) body.evaluation = asJson(options.evaluation, measured);
    run(() => goAfter(api.post("jobs", body), (job) => `#/jobs/${job.id}`));
  };
  return html`<form onSubmit=${start} class="new">
    <div class="title"><h1>${t("new_job")}: ${adapter.name}</h1></div><${Refused} error=${refused} />
    ${typed && html`<${Counts} types=${adapter.defects} most=${options.max_num_pairs} counts=${counts} onChange=${setAsked} />`}
    <div class="three">${!typed && html`<${Field} id="count" label=${t("count")} type="number" required min="1" max=${options.max_num_pairs} value=${fields.count} onInput=${(event) => setFields({ ...fields, count: event.target.value })} />`}
      <${Field} id="seed" label=${t("seed")} help=${t("seed_help")} type="number" min="0" value=${fields.seed} onInput=${(event) => setFields({ ...fields, seed: event.target.value })} /></div>
    <${Formats} names=${options.formats} chosen=${formats} onChange=${setFormats} />
    ${bounded && html`<${Places} adapter=${id} places=${places} onChange=${setPlaces} />`}
    ${adapter.request.held_out ? html`<label class="choice"><input type="checkbox" checked=${evaluates} onChange=${(event) => setEvaluates(event.target.checked)} /> ${t("evaluate")}</label>
      ${evaluates && html`<div class="options">${options.evaluation.map((option) => html`<${OptionInput} key=${option.name} option=${option} value=${measured[option.name]} onChange=${(value) => setMeasured({ ...measured, [option.name]: value })} />`)}</div>`}` : html`<p><small>${t("evaluate_none")}</small></p>`}
    <details><summary>${t("advanced")} (${sampling.length + options.limits.length})</summary><p><small>${t("options_help")}</small></p>
      <div class="options">${sampling.map((option) => html`<${OptionInput} key=${option.name} kind="sampling" recommended=${chosen.preset === "paper" ? {} : base.recommended[own.name]?.sampling} option=${option} value=${chosen[option.name]} onChange=${(value) => setChosen({ ...chosen, [option.name]: value })} />`)}
      ${options.limits.map((option) => html`<${OptionInput} key=${option.name} option=${option} value=${limits[option.name]} onChange=${(value) => setLimits({ ...limits, [option.name]: value })} />`)}</div></details>
    <${Send} id="generate" label=${t("generating")} busy=${busy} why=${typed && !sum(counts) ? t("why_count") : ""} /></form>`;
}

// The number of pairs: of each type where the adapter learned several, otherwise one.
function Counts({ types, most, counts, onChange }) {
  const all = sum(counts);
  return html`<fieldset class="counts"><legend>${t("count")}</legend>
    <div class="three">${types.map((type, at) => html`<${Field} key=${type} id=${`count-${at}`} label=${type} type="number" min="0" max=${most} value=${counts[type]} onInput=${(event) => onChange({ ...counts, [type]: event.target.value })} />`)}</div>
    <p role="status">${t("count_all", { n: all })}</p></fieldset>`;
}

export function Formats({ names, chosen, onChange }) {
  const toggle = (name) => { const next = new Set(chosen); if (!next.delete(name)) next.add(name); onChange(next); };
  return html`<fieldset class="formats"><legend>${t("every_format")}</legend>${names.map((name) => html`<label class="choice"><input type="checkbox" checked=${chosen.has(name)} onChange=${() => toggle(name)} /> ${t(`format_${name}`)}</label>`)}</fieldset>`;
}

// Who was rejected for what, as bars.
export function Reasons({ counts }) {
  const found = Object.entries(counts?.rejected || {}).sort(([, a], [, b]) => b - a);
  if (!found.length) return null;
  const most = found[0][1];
  return html`<section><h2>${t("left_out_reasons")}</h2><ul class="reasons">${found.map(([reason, count]) => html`<li key=${reason}><span>${t(`reason_${reason}`)}</span><meter min="0" max=${most} value=${count} aria-label=${t(`reason_${reason}`)}></meter><span>${count}</span></li>`)}</ul></section>`;
}

const SHOWN = 24;

// The pairs that exist so far, newest first; of a dataset the first ones.
function MadePairs({ job }) {
  const [pairs, setPairs] = useState([]);
  const made = job.counts?.accepted;
  useEffect(() => {
    let alive = true;
    api.get(`jobs/${job.id}/pairs?limit=${SHOWN}&order=${job.state === "succeeded" ? "made" : "newest"}`).then((found) => alive && setPairs(found.data), () => {});
    return () => { alive = false; };
  }, [made, job.state]);
  if (!pairs.length) return null;
  return html`<section><h2>${t(job.state === "succeeded" ? "pairs" : "pairs_so_far")} ${made > pairs.length ? html`<small>${t("of_all", { n: pairs.length, all: made })}</small>` : ""}</h2><ul class="strip">${pairs.map((pair) => html`<li key=${pair.candidate}><${Picture} path=${`jobs/${job.id}/pairs/${pair.candidate}/outline`} alt=${t("image_of", { n: pair.number ?? pair.candidate })} /></li>`)}</ul></section>`;
}

function RejectedPairs({ job }) {
  const [pairs, setPairs] = useState([]);
  const rejected = (job.counts?.attempts || 0) - (job.counts?.accepted || 0);
  useEffect(() => { if (rejected > 0) api.get(`jobs/${job.id}/pairs?rejected=true&limit=64`).then((found) => setPairs(found.data), () => {}); }, [rejected, job.state]);
  if (!pairs.length) return null;
  return html`<details><summary>${t("rejected_checks", { n: rejected })}</summary><p><small>${t("rejected_help", { n: pairs.length })}</small></p>
    <ul class="strip told">${pairs.map((pair) => html`<li key=${pair.candidate}><${Picture} path=${`jobs/${job.id}/pairs/${pair.candidate}/outline`} alt=${t("image_of", { n: pair.candidate })} /><small>${pair.reasons.map((reason) => t(`reason_${reason}`)).join(", ")}</small></li>`)}</ul></details>`;
}

const METRICS = ["pixel_ap", "pixel_f1", "pixel_auroc", "pro", "image_ap", "image_f1", "image_auroc", "accuracy"];

function Verdict({ job }) {
  const [found, setFound] = useState(null);
  const { verdict } = job;
  useEffect(() => { if (verdict?.status === "measured") api.get(`jobs/${job.id}/evaluation`).then(setFound, () => {}); }, [verdict]);
  if (!verdict) return null;
  const rows = found?.rows || [];
  const metrics = METRICS.filter((metric) => rows.some((row) => metric in row.mean));
  const cell = (row, metric) => {
    const [mean, spread] = [row.mean[metric], row.sd?.[metric]];
    return mean == null ? "–" : `${percent(mean)}${spread != null ? ` ± ${percent(spread)}` : ""}`;
  };
  return html`<section class="verdict"><h2>${t("evaluation")}</h2>
    ${verdict.status === "measured" ? html`<p><span class="state ${verdict.helps === true ? "succeeded" : verdict.helps === false ? "failed" : ""}">${t(verdict.helps === true ? "verdict_helps" : verdict.helps === false ? "verdict_hurts" : "verdict_unclear")}</span></p><p>${verdict.sentence}</p>${verdict.note && html`<p><small>${verdict.note}</small></p>`}` : html`<p>${t("not_evaluated", { detail: verdict.detail })}</p>`}
    ${rows.length > 0 && html`<div class="scroll"><table><caption><small>${t("table_in_percent", { n: found.seeds.length })}</small></caption><thead><tr><th scope="col">${t("row")}</th>${metrics.map((metric) => html`<th scope="col">${t(`metric_${metric}`)}</th>`)}</tr></thead>
      <tbody>${rows.map((row) => html`<tr key=${row.row}><th scope="row">${t(row.row === "real" ? "row_real" : "row_both")}</th>${metrics.map((metric) => html`<td>${cell(row, metric)}</td>`)}</tr>`)}</tbody></table></div>`}</section>`;
}

export function JobView({ id }) {
  const [job, error, setJob] = useRecord(`jobs/${id}`);
  const [tried, , refused] = useAction();
  if (error) return html`<${Refused} error=${error} />`;
  if (!job) return html`<p aria-busy="true"></p>`;
  const remove = () => confirm(t("delete_really", { name: t("job") })) && tried(() => goAfter(api.remove(`jobs/${id}`), () => "#/jobs"));
  const chosen = job.request.selection;
  return html`<div><div class="title"><h1>${job.request.num_pairs} ${t("unit_pairs")} <${State} state=${job.state} /></h1>
      <div class="actions">
        ${job.state === "succeeded" && html`<button type="button" onClick=${() => tried(() => api.download(id))}>${t("download_size", { size: size(job.dataset.bytes) })}</button><a role="button" class="outline" href=${`#/jobs/${id}/review`}>${t("open_review")}</a>`}
        ${["queued", "running"].includes(job.state) && html`<button type="button" class="secondary" onClick=${() => tried(async () => setJob(await api.act(`jobs/${id}/cancel`)))}>${t("cancel")}</button>`}
        ${ENDED.includes(job.state) && html`<button type="button" class="secondary outline" onClick=${remove}>${t("delete")}</button>`}
      </div></div>
    <p>${chosen ? html`${t("selection_of", { by: chosen.by })} · <a href=${`#/jobs/${chosen.job_id}`}>${t("job")}</a>` : html`<a href=${`#/adapters/${job.adapter_id}`}>${t("adapter")}</a> · ${t("seed")} ${job.request.seed}${job.request.follows ? html` · <a href=${`#/jobs/${job.request.follows.first_job_id}`}>${t("follows")}</a>` : ""}`} ${job.request.formats.length > 0 && `· ${job.request.formats.map((name) => t(`format_${name}`)).join(", ")}`}</p>
    <${Refused} error=${refused} />
    <${Progress} record=${job} />
    ${job.counts && html`<p role="status">${t("accepted_of", { n: job.counts.accepted, all: job.request.num_pairs })} · ${t("attempts", { n: job.counts.attempts })}</p>`}
    <${Failed} record=${job} />
    <${Verdict} job=${job} />
    <${MadePairs} job=${job} />
    <${Reasons} counts=${job.counts} />
    ${job.counts && html`<${RejectedPairs} job=${job} />`}</div>`;
}
