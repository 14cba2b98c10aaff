// The list of adapters, and one adapter.
import * as api from "../api.js";
import { number, t } from "../texts.js";
import { Curve, ENDED, Failed, goAfter, html, Picture, Progress, Refused, State, useAction, useList, useRecord, when } from "../ui.js";

export function AdaptersView() {
  const [adapters, error] = useList("adapters");
  return html`<div>
    <div class="title"><h1>${t("adapters")}</h1><a role="button" href="#/adapters/new">${t("new_adapter")}</a></div>
    <${Refused} error=${error} />
    ${adapters?.length === 0 && html`<section class="welcome"><h2>${t("welcome")}</h2>
      <ol><li>${t("welcome_1")}</li><li>${t("welcome_2")}</li><li>${t("welcome_3")}</li></ol></section>`}
    ${adapters?.length > 0 && html`<div class="scroll"><table>
      <thead><tr><th scope="col">${t("name")}</th><th scope="col">${t("method")}</th><th scope="col">${t("state")}</th><th scope="col">${t("created")}</th></tr></thead>
      <tbody>${adapters.map((adapter) => html`<tr key=${adapter.id}>
        <td><a href=${`#/adapters/${adapter.id}`}>${adapter.name}</a> <small>${adapter.request.object}: ${adapter.request.defect}</small></td>
        <td>${adapter.request.method}</td><td><${State} state=${adapter.state} /> ${adapter.state === "running" && adapter.progress?.total ? html`<small>${Math.round((100 * adapter.progress.completed) / adapter.progress.total)} %</small>` : ""}</td>
        <td>${when(adapter.created_at)}</td></tr>`)}</tbody>
    </table></div>`}</div>`;
}

export function AdapterView({ id }) {
  const [adapter, error, setAdapter] = useRecord(`adapters/${id}`);
  const [tried, , refused] = useAction();
  if (error) return html`<${Refused} error=${error} />`;
  if (!adapter) return html`<p aria-busy="true"></p>`;
  const remove = () => confirm(t("delete_really", { name: adapter.name })) && tried(() => goAfter(api.remove(`adapters/${id}`), () => "#/adapters"));
  const ended = ENDED.includes(adapter.state);
  const samples = [...adapter.samples].reverse();
  return html`<div>
    <div class="title"><h1>${adapter.name} <${State} state=${adapter.state} /></h1>
      <div class="actions">
        ${adapter.state === "succeeded" && html`<a role="button" href=${`#/adapters/${id}/generate`}>${t("generate")}</a>`}
        ${["queued", "running"].includes(adapter.state) && html`<button type="button" class="secondary" onClick=${() => tried(async () => setAdapter(await api.act(`adapters/${id}/cancel`)))}>${t("cancel")}</button>`}
        ${ended && html`<button type="button" class="secondary outline" onClick=${remove}>${t("delete")}</button>`}
      </div></div>
    <p>${adapter.request.object}: ${adapter.request.defect} · ${adapter.request.method}</p>
    <${Refused} error=${refused} />
    <${Progress} record=${adapter} />
    <${Failed} record=${adapter} />
    <${Curve} points=${adapter.loss} label=${t("loss")} />
    ${samples.length > 0 && html`<section><h2>${t("samples")}</h2><${Sheet} id=${id} step=${samples[0].step} />
      ${samples.length > 1 && html`<details><summary>${t("samples_before", { n: samples.length - 1 })}</summary>${samples.slice(1).map(({ step }) => html`<${Sheet} key=${step} id=${id} step=${step} />`)}</details>`}</section>`}
    ${adapter.notes.length > 0 && html`<details><summary>${t("notes")} (${adapter.notes.length})</summary><ul>${adapter.notes.map((note) => html`<li>${note}</li>`)}</ul></details>`}
    ${adapter.card && html`<details><summary>${t("show_card")}</summary><${Facts} facts=${adapter.card} /></details>`}</div>`;
}

function Sheet({ id, step }) {
  return html`<figure class="sheet"><figcaption>${t("step_of", { n: step })}</figcaption><${Picture} path=${`adapters/${id}/samples/${step}/picture`} alt=${t("sample_step", { n: step })} /></figure>`;
}

// Nested facts as a list of terms.
export function Facts({ facts }) {
  const text = (value) => (typeof value === "number" ? number(value) : typeof value === "object" && value !== null ? JSON.stringify(value) : String(value));
  return html`<dl class="facts">${Object.entries(facts).map(([name, value]) => html`<dt>${name.replaceAll("_", " ")}</dt>
    <dd>${value && typeof value === "object" && !Array.isArray(value) ? html`<${Facts} facts=${value} />` : text(value)}</dd>`)}</dl>`;
}
