// Where defects may lie and where not, painted on good parts.
import * as api from "../api.js";
import { t } from "../texts.js";
import { base64, html, Outline, Picture, useEffect, useState } from "../ui.js";
import { Painter } from "./painter.js";

const KINDS = ["allowed", "forbidden"];

// The fields of a job that say where, of what was painted.
export function regions(places) {
  const of = (kind) => places.filter((place) => place.kind === kind).map(({ mask, only, name }) => ({ mask, ...(only ? { normal: name } : {}) }));
  return Object.fromEntries(KINDS.map((kind) => [kind, of(kind)]).filter(([, found]) => found.length));
}

// `places` are what was painted: kind, mask (a PNG as file, and its base64), number and name of the good part, and whether it is meant alone.
export function Places({ adapter, places, onChange }) {
  const [parts, setParts] = useState([]);
  const [number, setNumber] = useState(0);
  const [painting, setPainting] = useState(null);
  useEffect(() => { api.get(`adapters/${adapter}/good-parts`).then(({ data }) => setParts(data), () => {}); }, [adapter]);
  if (!parts.length) return null;
  const path = (at) => `adapters/${adapter}/good-parts/${at}`;
  const paint = async (place) => setPainting({ ...place, image: await api.blob(path(place.number)) });
  const painted = async (file) => {
    const { image, at, ...place } = painting;
    const next = [...places];
    next[at] = { ...place, file, mask: await base64(file) };
    onChange(next);
    setPainting(null);
  };
  return html`<fieldset class="region"><legend>${t("region")}</legend><p><small>${t("region_help")}</small></p>
    <ul class="places">${places.map((place, at) => html`<li key=${at}><${Painted} path=${path(place.number)} place=${place} />
      <p><strong>${t(`region_${place.kind}`)}</strong><br /><small>${place.only ? t("region_one", { name: place.name }) : t("region_every")}</small></p>
      <div class="actions"><button type="button" class="small outline" onClick=${() => paint({ ...place, at })}>${t("region_edit")}</button>
        <button type="button" class="small outline secondary" onClick=${() => onChange(places.filter((other) => other !== place))}>${t("remove")}</button></div></li>`)}</ul>
    <div class="actions"><label>${t("good_part")} <select value=${number} onChange=${(event) => setNumber(Number(event.target.value))}>${parts.map((part, at) => html`<option value=${at}>${part.name}</option>`)}</select></label>
      <button type="button" class="outline" onClick=${() => paint({ at: places.length, kind: KINDS[0], only: false, number, name: parts[number].name })}>${t("region_paint")}</button></div>
    <${Picture} path=${path(number)} alt=${t("good_part")} />
    ${painting && html`<${Painter} title=${`${t("region")}: ${painting.name}`} save=${t("region_use")} image=${painting.image} mask=${painting.file} onMask=${painted} onBroken=${() => setPainting(null)} onClose=${() => setPainting(null)}>
      <fieldset class="tools" aria-label=${t("region")}>${KINDS.map((kind) => html`<label key=${kind}><input type="radio" name="place-kind" checked=${painting.kind === kind} onChange=${() => setPainting({ ...painting, kind })} /> ${t(`region_${kind}`)}</label>`)}
        <label><input type="checkbox" checked=${painting.only} onChange=${(event) => setPainting({ ...painting, only: event.target.checked })} /> ${t("region_only")}</label></fieldset><//>`}</fieldset>`;
}

function Painted({ path, place }) {
  return html`<span class="stack"><${Picture} path=${path} alt=${`${t(`region_${place.kind}`)}: ${place.name}`} /><${Outline} source=${`data:image/png;base64,${place.mask}`} fill=${90} /></span>`;
}
