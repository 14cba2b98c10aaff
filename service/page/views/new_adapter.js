// Photographs, masks, good parts and options of a new adapter.
import * as api from "../api.js";
import { dropped, isBinary, joined, keyOf, matched, shownName, typeName, withoutEnding } from "../files.js";
import { methodHelp, t } from "../texts.js";
import { Field, go, html, OptionInput, Refused, useEffect, useMemo, useRecommended, useRef, useState } from "../ui.js";
import { Painter } from "./painter.js";

function Drop({ label, onFiles, id }) {
  const [over, setOver] = useState(false);
  return html`<div class="drop ${over ? "over" : ""}" onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)}
    onDrop=${async (event) => { event.preventDefault(); setOver(false); onFiles(await dropped(event.dataTransfer)); }}>
    <label for=${id}>${label}</label>
    <input id=${id} type="file" multiple accept=".png,.jpg,.jpeg,.bmp,.tif,.tiff,.webp" onChange=${(event) => { onFiles([...event.target.files]); event.target.value = ""; }} />
  </div>`;
}

function Preview({ file, alt }) {
  const [failed, setFailed] = useState(false);
  const url = useMemo(() => URL.createObjectURL(file), [file]);
  useEffect(() => () => URL.revokeObjectURL(url), [url]);
  return failed ? html`<span class="blank">${t("no_picture")}</span>` : html`<img src=${url} alt=${alt} onError=${() => setFailed(true)} />`;
}

// Photographs with their masks beside them. `types`, where they may differ: what has been said of which photograph, and what to do about it.
function Pairs({ id, label, files, drawn, onFiles, onGoods, onDrawn, errors, types }) {
  const { pairs, orphans } = matched(files);
  const [painting, setPainting] = useState(null);
  const [broken, setBroken] = useState(new Set());
  const without = pairs.filter(({ image, masks }) => !masks.length && !drawn.has(image)).length;
  const latest = useRef(files);
  latest.current = files;
  const add = async (more) => {
    const shown = more.filter((file) => !file.isGood);
    await Promise.all(shown.map(async (file) => { Object.assign(file, { defect: types?.next || file.defect || "", isSaid: Boolean(types?.next), isBinary: await isBinary(file) }); }));
    onFiles(joined(latest.current, shown));
    if (shown.length < more.length) onGoods(more.filter((file) => file.isGood));
  };
  const without_ = (gone) => onFiles(files.filter((file) => !gone.includes(file)));
  return html`<div>
    <${Drop} id=${id} label=${label} onFiles=${add} />
    ${pairs.length > 0 && without > 0 && html`<p role="status">${t("masks_missing", { n: without, all: pairs.length })}</p>`}
    <ul class="uploads">${pairs.map(({ image, masks }) => {
      const own = drawn.get(image);
      const told = [image, own, ...masks].flatMap((file) => (file && errors.get(file)) || []);
      const name = shownName(image);
      return html`<li key=${keyOf(image)} class=${told.length ? "wrong" : ""}>
        <div class="two"><${Preview} file=${image} alt=${name} />
          ${own ? html`<${Preview} key=${own.lastModified} file=${own} alt=${t("mask_for", { name })} />` : masks[0] ? html`<${Preview} file=${masks[0]} alt=${t("mask_for", { name })} />` : html`<span class="blank">${t("mask_missing")}</span>`}</div>
        <p class="file">${name} <small>${own ? t("drawn") : masks.map((mask) => mask.name).join(", ")}</small></p>
        ${types?.shown && html`<label class="type">${t("type")} <input list="types" maxlength="80" aria-label=${t("type_of", { name })} value=${types.of(image)} onInput=${(event) => types.onSay(image, event.target.value)} /></label>`}
        ${types?.all.length > 0 && !types.of(image) && html`<p class="refusal">${t("type_missing")}</p>`}
        ${told.map((detail) => html`<p class="refusal" role="alert">${detail}</p>`)}
        ${broken.has(image) && html`<p class="refusal">${t("no_preview")}</p>`}
        <div class="actions"><button type="button" class="small" aria-label=${`${t(own || masks.length ? "edit_mask" : "draw_mask")}: ${name}`} onClick=${() => setPainting({ image, mask: own || masks[0] })}>${t(own || masks.length ? "edit_mask" : "draw_mask")}</button>
          <button type="button" class="small secondary outline" aria-label=${`${t("remove")}: ${name}`} onClick=${() => without_([image, ...masks])}>${t("remove")}</button></div></li>`;
    })}
    ${orphans.map((mask) => html`<li key=${keyOf(mask)} class="wrong"><div class="two"><span class="blank">?</span><${Preview} file=${mask} alt=${shownName(mask)} /></div>
      <p class="file">${shownName(mask)}</p><p class="refusal">${errors.get(mask)?.join(" ") || t("mask_without")}</p>
      <div class="actions"><button type="button" class="small secondary outline" aria-label=${`${t("remove")}: ${shownName(mask)}`} onClick=${() => without_([mask])}>${t("remove")}</button></div></li>`)}
    </ul>
    ${painting && html`<${Painter} title=${t("mask_for", { name: shownName(painting.image) })} image=${painting.image} mask=${painting.mask}
      onBroken=${() => { setBroken(new Set([...broken, painting.image])); setPainting(null); }} onClose=${() => setPainting(null)}
      onMask=${(blob) => { onDrawn(painting.image, Object.assign(new File([blob], `${withoutEnding(painting.image.name)}.png`, { type: "image/png", lastModified: Date.now() }), { path: painting.image.path && `${withoutEnding(painting.image.path)}.png` })); setPainting(null); }} />`}</div>`;
}

function Goods({ id, label, files, onFiles, errors }) {
  return html`<div><${Drop} id=${id} label=${label} onFiles=${(more) => onFiles(joined(files, more))} />
    <ul class="uploads goods">${files.map((file) => html`<li key=${shownName(file)} class=${errors.get(file) ? "wrong" : ""}><${Preview} file=${file} alt=${shownName(file)} /><p class="file">${shownName(file)}</p>
      ${(errors.get(file) || []).map((detail) => html`<p class="refusal" role="alert">${detail}</p>`)}
      <button type="button" class="small secondary outline" aria-label=${`${t("remove")}: ${shownName(file)}`} onClick=${() => onFiles(files.filter((other) => other !== file))}>${t("remove")}</button></li>`)}</ul></div>`;
}

export function NewAdapter() {
  const [options, setOptions] = useState(null);
  const [fields, setFields] = useState({ name: "", object: "", defect: "" });
  const [wanted, setMethod] = useState(null);
  const [chosen, setChosen] = useState({});
  const [files, setFiles] = useState({ pairs: [], normals: [], held: [], heldNormals: [] });
  const [drawn, setDrawn] = useState(new Map());
  const [said, setSaid] = useState(new Map()); // photograph → its defect type, where somebody has entered one
  const [next, setNext] = useState("");
  const [errors, setErrors] = useState(new Map());
  const [refused, setRefused] = useState(null);
  const [sent, setSent] = useState(null);
  const top = useRef();
  const base = useRecommended(null);
  useEffect(() => { api.get("options").then(setOptions, setRefused); }, []);
  if (!options) return html`<${Refused} error=${refused} />`;
  const method = wanted ?? ((files.normals.length && base.method) || options.default_method);
  const own = options.methods.find((each) => each.name === method);
  const change = (kind) => (list) => setFiles((before) => ({ ...before, [kind]: list }));
  const more = (kind) => (list) => setFiles((before) => ({ ...before, [kind]: joined(before[kind], list) }));
  const draw = (image, file) => setDrawn(new Map(drawn).set(image, file));
  const set = (name) => (event) => setFields({ ...fields, [name]: event.target.value });

  const photographs = matched(files.pairs).pairs.map(({ image }) => image);
  const typeOf = (image) => typeName(said.get(image) ?? image.defect);
  const named = [...new Set(photographs.map(typeOf).filter(Boolean))].sort();
  // One folder's name alone says nothing: all photographs may lie in it.
  const types = named.length > 1 || photographs.some((image) => typeOf(image) && (said.has(image) || image.isSaid)) ? named : [];
  const counted = types.map((type) => `${type} (${photographs.filter((image) => typeOf(image) === type).length})`).join(", ");
  const typed = { all: types, shown: own.several_types || types.length > 0, next: own.several_types ? typeName(next) : "", of: (image) => said.get(image) ?? image.defect, onSay: (image, text) => setSaid(new Map(said).set(image, text)) };
  const tooMany = types.length > 1 && !own.several_types;
  const unclear = tooMany || (types.length > 0 && !photographs.every(typeOf));

  const train = async (event) => {
    event.preventDefault();
    const form = new FormData();
    const order = {};
    const add = (kind, file, type = "") => {
      (order[`/${kind}${type && `/${type.replaceAll("~", "~0").replaceAll("/", "~1")}`}`] ||= []).push(file);
      form.append(`${kind}[${type}]`, file, shownName(file));
    };
    for (const [kind, images, masks] of [["pairs", "images", "masks"], ["held", "held_out_images", "held_out_masks"]]) {
      const { pairs, orphans } = matched(files[kind]);
      const isTyped = kind === "pairs" && types.length > 0;
      for (const pair of pairs) {
        const type = isTyped ? typeOf(pair.image) : "";
        add(images, pair.image, type);
        for (const mask of drawn.has(pair.image) ? [drawn.get(pair.image)] : pair.masks) add(masks, mask, type);
      }
      for (const mask of orphans) add(masks, mask, isTyped ? (types.includes(mask.defect) ? mask.defect : types[0]) : "");
    }
    for (const file of files.normals) add("normals", file);
    for (const file of files.heldNormals) add("held_out_normals", file);
    for (const [name, value] of Object.entries({ ...fields, defect: types.length ? "" : fields.defect, method, ...chosen })) if (value !== "" && value !== undefined) form.append(name, value);
    setErrors(new Map());
    setRefused(null);
    setSent(0);
    try {
      const adapter = await api.upload("adapters", form, setSent);
      go(`#/adapters/${adapter.id}`);
    } catch (problem) {
      const found = new Map();
      const rest = [];
      for (const entry of problem.errors || []) {
        const places = (entry.files || (entry.pointer ? [entry.pointer] : [])).map((pointer) => order[pointer.slice(0, pointer.lastIndexOf("/"))]?.[Number(pointer.slice(pointer.lastIndexOf("/") + 1))]).filter(Boolean);
        if (places.length) for (const file of new Set(places)) found.set(file, [...(found.get(file) || []), entry.detail]);
        else rest.push(entry);
      }
      setErrors(found);
      setRefused({ message: rest.length ? "" : problem.message, errors: rest.length > 1 ? rest : [], ...(rest.length === 1 ? { message: rest[0].detail } : {}) });
      setSent(null);
      top.current?.scrollIntoView();
    }
  };

  return html`<form onSubmit=${train} class="new">
    <div class="title" ref=${top}><h1>${t("new_adapter")}</h1></div>
    <${Refused} error=${refused} />
    <div class="three">
      <${Field} id="name" label=${t("name")} help=${t("name_help")} required maxlength="80" value=${fields.name} onInput=${set("name")} />
      <${Field} id="object" label=${t("object")} help=${t("object_help")} maxlength="80" value=${fields.object} onInput=${set("object")} />
      ${!types.length && html`<${Field} id="defect" label=${t("defect")} help=${t("defect_help")} maxlength="80" value=${fields.defect} onInput=${set("defect")} />`}
    </div>
    <section aria-labelledby="pairs-title"><h2 id="pairs-title">${t("photographs", { n: photographs.length })}</h2><p><small>${t("drop_help")}</small></p>
      ${own.several_types && html`<${Field} id="type-next" label=${t("type_next")} help=${t("type_next_help")} list="types" maxlength="80" value=${next} onInput=${(event) => setNext(event.target.value)} />`}
      <datalist id="types">${types.map((type) => html`<option value=${type} />`)}</datalist>
      ${types.length > 0 && html`<p role="status">${t("types_are", { types: counted })} <button type="button" class="small outline" onClick=${() => setSaid(new Map(photographs.map((image) => [image, ""])))}>${t("type_same")}</button></p>`}
      <${Pairs} id="files-pairs" label=${t("drop_pictures")} files=${files.pairs} drawn=${drawn} errors=${errors} types=${typed} onFiles=${change("pairs")} onGoods=${more("normals")} onDrawn=${draw} /></section>
    <section aria-labelledby="goods-title"><h2 id="goods-title">${t("good_parts", { n: files.normals.length })}</h2><p><small>${t("good_parts_help")}</small></p>
      <${Goods} id="files-normals" label=${t("drop_good")} files=${files.normals} errors=${errors} onFiles=${change("normals")} /></section>
    <details><summary>${t("held_out", { n: matched(files.held).pairs.length })}</summary><p><small>${t("held_out_help")}</small></p>
      <h3>${t("held_images")}</h3><${Pairs} id="files-held" label=${t("drop_pictures")} files=${files.held} drawn=${drawn} errors=${errors} onFiles=${change("held")} onGoods=${more("heldNormals")} onDrawn=${draw} />
      <h3>${t("held_normals")}</h3><${Goods} id="files-held-normals" label=${t("drop_good")} files=${files.heldNormals} errors=${errors} onFiles=${change("heldNormals")} /></details>
    <fieldset><legend><strong>${t("method")}</strong></legend>${options.methods.map(({ name, help }) => html`<div class="choice"><input type="radio" id=${`method-${name}`} name="method" value=${name} checked=${method === name} aria-describedby=${`method-${name}-help`} onChange=${() => { setMethod(name); setChosen({}); }} />
      <label for=${`method-${name}`}>${name}</label> <small id=${`method-${name}-help`}>${methodHelp({ name, help })}</small></div>`)}
      ${tooMany && html`<p class="refusal" role="alert">${t("types_too_many", { method, n: types.length, types: types.join(", "), others: options.methods.filter((each) => each.several_types).map((each) => each.name).join(", ") })}</p>`}</fieldset>
    <details><summary>${t("advanced")} (${own.training.length})</summary><p><small>${t("options_help")}</small></p><div class="options">${own.training.map((option) => html`<${OptionInput} key=${`${method}-${option.name}`} kind="training" recommended=${chosen.preset === "paper" ? {} : base.training} option=${option} value=${chosen[option.name]} onChange=${(value) => setChosen({ ...chosen, [option.name]: value })} />`)}</div></details>
    ${sent !== null && html`<div><progress aria-label=${t("progress")} value=${sent} max="1"></progress><p role="status">${t("sending", { n: Math.round(100 * sent) })}</p></div>`}
    <button type="submit" disabled=${sent !== null || unclear || !files.pairs.length}>${t("train")}</button>
  </form>`;
}
