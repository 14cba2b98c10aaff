// Photographs, masks, good parts and options of a new adapter.
import * as api from "../api.js";
import { chosen, dropped, isBinary, joined, keyOf, matched, shownName, typeName, withoutEnding } from "../files.js";
import { methodHelp, t } from "../texts.js";
import { Field, goAfter, html, OptionInput, Refused, Send, useEffect, useMemo, useRecommended, useRef, useState, useUnsent } from "../ui.js";
import { Painter } from "./painter.js";

const NAMED = 5; // files that a message names

const listed = (names) => `${names.slice(0, NAMED).join(", ")}${names.length > NAMED ? ` … (${names.length})` : ""}`;

// A place for files and folders: dropped, or chosen. Its inputs are named by the heading whose id is `ID-title`, too.
function Drop({ label, onFiles, id }) {
  const [over, setOver] = useState(false);
  const [left, setLeft] = useState({ others: [], unread: [] });
  const take = async (found) => {
    const { files, ...rest } = await found;
    const isTaken = new Set(files.map(shownName));
    const both = (before, kind) => [...new Set([...rest[kind], ...before[kind]])].filter((name) => !isTaken.has(name));
    setLeft((before) => ({ others: both(before, "others"), unread: both(before, "unread") }));
    onFiles(files);
  };
  const picked = (event) => { const found = chosen(event.target.files); event.target.value = ""; take(found); };
  return html`<div class="drop ${over ? "over" : ""}" onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)}
    onDrop=${(event) => { event.preventDefault(); setOver(false); take(dropped(event.dataTransfer)); }}>
    <div><label for=${id} id=${`${id}-name`}>${label}</label><input id=${id} aria-labelledby=${`${id}-title ${id}-name`} type="file" multiple accept=".png,.jpg,.jpeg,.bmp,.tif,.tiff,.webp" onChange=${picked} /></div>
    <div><label for=${`${id}-folder`} id=${`${id}-folder-name`}>${t("drop_folder")}</label><input id=${`${id}-folder`} aria-labelledby=${`${id}-title ${id}-folder-name`} type="file" webkitdirectory onChange=${picked} /></div>
    ${left.unread.length > 0 && html`<p class="refusal" role="alert">${t("drop_unread", { names: listed(left.unread) })}</p>`}
    ${left.others.length > 0 && html`<p class="note" role="status">${t("drop_others", { names: listed(left.others) })}</p>`}
  </div>`;
}

function Preview({ file, alt }) {
  const [failed, setFailed] = useState(false);
  const url = useMemo(() => URL.createObjectURL(file), [file]);
  useEffect(() => () => URL.revokeObjectURL(url), [url]);
  return failed ? html`<span class="blank">${t("no_picture")}</span>` : html`<img src=${url} alt=${alt} onError=${() => setFailed(true)} />`;
}

// Photographs with their masks beside them. `types`: what has been said of which photograph, what is wrong with it, and what to do about it.
function Pairs({ id, label, files, drawn, onAdd, onRemove, onGoods, onDrawn, errors, types }) {
  const { pairs, orphans } = matched(files);
  const [painting, setPainting] = useState(null);
  const [broken, setBroken] = useState(new Set());
  const without = pairs.filter(({ image, masks }) => !masks.length && !drawn.has(image)).length;
  const add = async (more) => {
    const shown = more.filter((file) => !file.isGood);
    await Promise.all(shown.map(async (file) => { Object.assign(file, { defect: types.next || file.defect || "", isSaid: Boolean(types.next), isBinary: await isBinary(file) }); }));
    onAdd(shown);
    if (shown.length < more.length) onGoods(more.filter((file) => file.isGood));
  };
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
        ${types.shown && html`<label class="type">${t("type")} <input list="types" maxlength="80" aria-label=${t("type_of", { name })} value=${types.of(image)} onInput=${(event) => types.onSay(image, event.target.value)} /></label>`}
        ${types.wrong(image) && html`<p class="refusal">${types.wrong(image)}</p>`}
        ${told.map((detail) => html`<p class="refusal" role="alert" lang="en">${detail}</p>`)}
        ${broken.has(image) && html`<p class="refusal">${t("no_preview")}</p>`}
        <div class="actions"><button type="button" class="small" aria-label=${`${t(own || masks.length ? "edit_mask" : "draw_mask")}: ${name}`} onClick=${() => setPainting({ image, mask: own || masks[0] })}>${t(own || masks.length ? "edit_mask" : "draw_mask")}</button>
          <button type="button" class="small secondary outline" aria-label=${`${t("remove")}: ${name}`} onClick=${() => onRemove([image, ...masks])}>${t("remove")}</button></div></li>`;
    })}
    ${orphans.map((mask) => html`<li key=${keyOf(mask)} class="wrong"><div class="two"><span class="blank">?</span><${Preview} file=${mask} alt=${shownName(mask)} /></div>
      <p class="file">${shownName(mask)}</p>${errors.get(mask) ? html`<p class="refusal" role="alert" lang="en">${errors.get(mask).join(" ")}</p>` : html`<p class="refusal">${t("mask_without")}</p>`}
      <div class="actions"><button type="button" class="small secondary outline" aria-label=${`${t("remove")}: ${shownName(mask)}`} onClick=${() => onRemove([mask])}>${t("remove")}</button></div></li>`)}
    </ul>
    ${painting && html`<${Painter} title=${t("mask_for", { name: shownName(painting.image) })} image=${painting.image} mask=${painting.mask}
      onBroken=${() => { setBroken(new Set([...broken, painting.image])); setPainting(null); }} onClose=${() => setPainting(null)}
      onMask=${(blob) => { onDrawn(painting.image, Object.assign(new File([blob], `${withoutEnding(painting.image.name)}.png`, { type: "image/png", lastModified: Date.now() }), { path: painting.image.path && `${withoutEnding(painting.image.path)}.png` })); setPainting(null); }} />`}</div>`;
}

function Goods({ id, label, files, onAdd, onRemove, errors }) {
  return html`<div><${Drop} id=${id} label=${label} onFiles=${onAdd} />
    <ul class="uploads goods">${files.map((file) => html`<li key=${shownName(file)} class=${errors.get(file) ? "wrong" : ""}><${Preview} file=${file} alt=${shownName(file)} /><p class="file">${shownName(file)}</p>
      ${(errors.get(file) || []).map((detail) => html`<p class="refusal" role="alert" lang="en">${detail}</p>`)}
      <button type="button" class="small secondary outline" aria-label=${`${t("remove")}: ${shownName(file)}`} onClick=${() => onRemove([file])}>${t("remove")}</button></li>`)}</ul></div>`;
}

const namesOf = (images, typeOf) => [...new Set(images.map(typeOf).filter(Boolean))].sort();

export function NewAdapter() {
  const [options, setOptions] = useState(null);
  const [fields, setFields] = useState({ name: "", object: "", defect: "" });
  const [wanted, setMethod] = useState(null);
  const [advanced, setAdvanced] = useState({}); // method → its options
  const [files, setFiles] = useState({ pairs: [], normals: [], held: [], heldNormals: [] });
  const [drawn, setDrawn] = useState(new Map());
  const [said, setSaid] = useState(new Map()); // photograph → its defect type, where somebody has entered one
  const [next, setNext] = useState("");
  const [errors, setErrors] = useState(new Map());
  const [refused, setRefused] = useState(null);
  const [sent, setSent] = useState(null);
  const top = useRef();
  const base = useRecommended(null);
  useUnsent(() => Object.values(files).some((list) => list.length));
  useEffect(() => { api.get("options").then(setOptions, setRefused); }, []);
  if (!options) return html`<${Refused} error=${refused} />`;
  const add = (kind) => (more) => setFiles((before) => ({ ...before, [kind]: joined(before[kind], more) }));
  const remove = (kind) => (gone) => setFiles((before) => ({ ...before, [kind]: before[kind].filter((file) => !gone.includes(file)) }));
  const draw = (image, file) => setDrawn((before) => new Map(before).set(image, file));
  const say = (image, text) => setSaid((before) => new Map(before).set(image, text));
  const sayNothing = (images) => setSaid((before) => new Map([...before, ...images.map((image) => [image, ""])]));
  const set = (name) => (event) => setFields({ ...fields, [name]: event.target.value });

  const photographs = matched(files.pairs).pairs.map(({ image }) => image);
  const saidOf = (image) => said.get(image) ?? image.defect;
  const typeOf = (image) => typeName(saidOf(image));
  const named = namesOf(photographs, typeOf);
  // One folder's name alone says nothing: all photographs may lie in it.
  const types = named.length > 1 || photographs.some((image) => typeOf(image) && (said.has(image) || image.isSaid)) ? named : [];
  const counted = types.map((type) => `${type} (${photographs.filter((image) => typeOf(image) === type).length})`).join(", ");

  const held = matched(files.held).pairs.map(({ image }) => image);
  // A folder's name says a type where there are photographs of it to train on.
  const heldSaidOf = (image) => said.get(image) ?? (types.includes(typeName(image.defect)) ? image.defect : "");
  const heldTypeOf = (image) => typeName(heldSaidOf(image));
  const heldTypes = types.length ? namesOf(held, heldTypeOf) : [];
  const heldLacking = heldTypes.length ? types.filter((type) => !heldTypes.includes(type)) : [];

  const several = options.methods.filter((each) => each.several_types).map((each) => each.name);
  const suited = types.length > 1 ? several.find((name) => name === base.method) ?? several[0] : files.normals.length ? base.method : undefined;
  const method = wanted ?? suited ?? options.default_method;
  const own = options.methods.find((each) => each.name === method);
  const values = advanced[method] ?? {};
  const isChosen = wanted === null && method !== options.default_method;
  const tooMany = types.length > 1 && !own.several_types;

  const wrong = (image) => (types.length && !typeOf(image) ? t("type_missing") : "");
  const heldWrong = (image) => (!heldTypes.length || types.includes(heldTypeOf(image)) ? "" : heldTypeOf(image) ? t("type_unknown", { types: types.join(", ") }) : t("type_missing"));
  const typed = { shown: own.several_types || types.length > 0, next: own.several_types ? typeName(next) : "", of: saidOf, wrong, onSay: say };
  const heldTyped = { shown: types.length > 0, next: "", of: heldSaidOf, wrong: heldWrong, onSay: say };
  const why = !files.pairs.length ? t("why_photographs") : tooMany ? t("why_method") : photographs.some(wrong) ? t("why_types") : own.needs_normals && !files.normals.length ? t("why_normals", { method }) : heldLacking.length || held.some(heldWrong) ? t("why_held") : "";

  const train = async (event) => {
    event.preventDefault();
    const form = new FormData();
    const order = {};
    const append = (kind, file, type = "") => {
      (order[`/${kind}${type && `/${type.replaceAll("~", "~0").replaceAll("/", "~1")}`}`] ||= []).push(file);
      form.append(`${kind}[${type}]`, file, shownName(file));
    };
    for (const [kind, images, masks] of [["pairs", "images", "masks"], ["held", "held_out_images", "held_out_masks"]]) {
      const { pairs, orphans } = matched(files[kind]);
      const [known, of] = kind === "pairs" ? [types, typeOf] : [heldTypes, heldTypeOf];
      for (const pair of pairs) {
        const type = known.length ? of(pair.image) : "";
        append(images, pair.image, type);
        for (const mask of drawn.has(pair.image) ? [drawn.get(pair.image)] : pair.masks) append(masks, mask, type);
      }
      for (const mask of orphans) append(masks, mask, known.length ? (known.includes(mask.defect) ? mask.defect : known[0]) : "");
    }
    for (const file of files.normals) append("normals", file);
    for (const file of files.heldNormals) append("held_out_normals", file);
    for (const [name, value] of Object.entries({ ...fields, defect: types.length ? "" : fields.defect, method, ...values })) if (value !== "" && value !== undefined) form.append(name, value);
    setErrors(new Map());
    setRefused(null);
    setSent(0);
    try {
      await goAfter(api.upload("adapters", form, setSent), (adapter) => `#/adapters/${adapter.id}`);
    } catch (problem) {
      const found = new Map();
      const rest = [];
      for (const entry of problem.errors || []) {
        const places = (entry.files || (entry.pointer ? [entry.pointer] : [])).map((pointer) => order[pointer.slice(0, pointer.lastIndexOf("/"))]?.[Number(pointer.slice(pointer.lastIndexOf("/") + 1))]).filter(Boolean);
        if (places.length) for (const file of new Set(places)) found.set(file, [...(found.get(file) || []), entry.detail]);
        else rest.push(entry);
      }
      setErrors(found);
      setRefused({ code: problem.code, message: rest.length === 1 ? rest[0].detail : rest.length ? "" : problem.message, errors: rest });
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
    <section aria-labelledby="files-pairs-title"><h2 id="files-pairs-title">${t("photographs", { n: photographs.length })}</h2><p><small>${t("drop_help")}</small></p>
      ${own.several_types && html`<${Field} id="type-next" label=${t("type_next")} help=${t("type_next_help")} list="types" maxlength="80" value=${next} onInput=${(event) => setNext(event.target.value)} />`}
      <datalist id="types">${types.map((type) => html`<option value=${type} />`)}</datalist>
      ${types.length > 0 && html`<p role="status">${t("types_are", { types: counted })} <button type="button" class="small outline" onClick=${() => sayNothing(photographs)}>${t("type_same")}</button></p>`}
      <${Pairs} id="files-pairs" label=${t("drop_pictures")} files=${files.pairs} drawn=${drawn} errors=${errors} types=${typed} onAdd=${add("pairs")} onRemove=${remove("pairs")} onGoods=${add("normals")} onDrawn=${draw} /></section>
    <section aria-labelledby="files-normals-title"><h2 id="files-normals-title">${t("good_parts", { n: files.normals.length })}</h2><p><small>${t("good_parts_help")}</small></p>
      <${Goods} id="files-normals" label=${t("drop_good")} files=${files.normals} errors=${errors} onAdd=${add("normals")} onRemove=${remove("normals")} /></section>
    <details><summary>${t("held_out", { n: held.length })}</summary><p><small>${t("held_out_help")}</small></p>
      <h3 id="files-held-title">${t("held_images")}</h3>
      ${types.length > 0 && held.length > 0 && html`<p role="status">${heldTypes.length ? html`${t("held_by_type")} <button type="button" class="small outline" onClick=${() => sayNothing(held)}>${t("held_as_one")}</button>` : t("held_together")}</p>`}
      ${heldLacking.length > 0 && html`<p class="refusal" role="alert">${t("held_lacking", { types: heldLacking.join(", ") })}</p>`}
      <${Pairs} id="files-held" label=${t("drop_pictures")} files=${files.held} drawn=${drawn} errors=${errors} types=${heldTyped} onAdd=${add("held")} onRemove=${remove("held")} onGoods=${add("heldNormals")} onDrawn=${draw} />
      <h3 id="files-held-normals-title">${t("held_normals")}</h3><${Goods} id="files-held-normals" label=${t("drop_good")} files=${files.heldNormals} errors=${errors} onAdd=${add("heldNormals")} onRemove=${remove("heldNormals")} /></details>
    <fieldset><legend><strong>${t("method")}</strong></legend>${options.methods.map(({ name, help }) => html`<div class="choice"><input type="radio" id=${`method-${name}`} name="method" value=${name} checked=${method === name} aria-describedby=${`method-${name}-help`} onChange=${() => setMethod(name)} />
      <label for=${`method-${name}`}>${name}</label> <small id=${`method-${name}-help`}>${methodHelp({ name, help })}</small></div>`)}
      <p role="status"><small>${isChosen && t(types.length > 1 ? "method_by_types" : "method_by_base", { method })}</small></p>
      ${tooMany && html`<p class="refusal" role="alert">${t("types_too_many", { method, n: types.length, types: types.join(", "), others: several.join(", ") })}</p>`}</fieldset>
    <details><summary>${t("advanced")} (${own.training.length})</summary><p><small>${t("options_help")}</small></p><div class="options">${own.training.map((option) => html`<${OptionInput} key=${`${method}-${option.name}`} kind="training" recommended=${values.preset === "paper" ? {} : base.recommended[method]?.training} option=${option} value=${values[option.name]} onChange=${(value) => setAdvanced({ ...advanced, [method]: { ...values, [option.name]: value } })} />`)}</div></details>
    ${sent !== null && html`<div><progress aria-label=${t("progress")} value=${sent} max="1"></progress><p role="status">${t("sending", { n: Math.round(100 * sent) })}</p></div>`}
    <${Send} id="train" label=${t("train")} busy=${sent !== null} why=${why} />
  </form>`;
}
