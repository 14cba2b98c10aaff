// Photographs, masks, good parts and options of a new adapter.
import * as api from "../api.js";
import { methodHelp, t } from "../texts.js";
import { Field, go, html, OptionInput, Refused, useEffect, useMemo, useRecommended, useRef, useState } from "../ui.js";
import { Painter } from "./painter.js";

const WORDS = "(?:ground[ _-]?truth|masks?|gt|labels?|seg(?:mentation)?s?|annotations?|anno|defects?)";
const SUFFIX = new RegExp(`[ ._-]${WORDS}(?:[ ._-]?\\(?\\d{1,6}\\)?)?$`);
const PREFIX = new RegExp(`^(?:${WORDS}(?:[ ._-](?=.)|(?=\\d))|task-\\d+-annotation-)`);
const PICTURE = /\.(png|jpe?g|bmp|tiff?|webp)$/i;

const stem = (name) => name.replace(PICTURE, "").toLowerCase();
const bare = (name) => stem(name).replace(SUFFIX, "").replace(PREFIX, "");

// Files that have come so far, sorted into photographs and masks by name; the API has the last word.
function sorted(files) {
  const images = [];
  const masks = [];
  for (const file of files) (SUFFIX.test(stem(file.name)) || PREFIX.test(stem(file.name)) || file.inMaskFolder ? masks : images).push(file);
  // Of two files with one stem, the black and white one is the mask.
  const photographs = [];
  for (const file of images) {
    const twins = images.filter((other) => stem(other.name) === stem(file.name));
    const photograph = twins.find((twin) => !twin.isBinary) || twins[0];
    (file === photograph ? photographs : masks).push(file);
  }
  const matched = photographs.map((image) => ({ image, masks: masks.filter((mask) => [stem(mask.name), bare(mask.name)].includes(stem(image.name))) }));
  const used = new Set(matched.flatMap((pair) => pair.masks));
  return { pairs: matched, orphans: masks.filter((mask) => !used.has(mask)) };
}

// Whether a picture has no other levels than black and white, looked at in a few places.
async function isBinary(file) {
  try {
    const side = 96;
    const picture = await createImageBitmap(file, { resizeWidth: side, resizeHeight: side, resizeQuality: "pixelated" });
    const pen = Object.assign(document.createElement("canvas"), { width: side, height: side }).getContext("2d", { willReadFrequently: true });
    pen.drawImage(picture, 0, 0);
    const { data } = pen.getImageData(0, 0, side, side);
    let between = 0;
    for (let i = 0; i < data.length; i += 4) between += [0, 1, 2].some((c) => data[i + c] > 8 && data[i + c] < 247);
    return between < 0.01 * side * side;
  } catch {
    return false;
  }
}

// Files of a drop, folders included; those in folders that are called like masks are masks.
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const found = [];
  const walk = async (entry, inMasks) => {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      if (PICTURE.test(file.name)) found.push(Object.assign(file, { inMaskFolder: inMasks }));
    } else {
      const reader = entry.createReader();
      for (let more; (more = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length;) {
        for (const each of more) await walk(each, inMasks || new RegExp(`^${WORDS}$`).test(entry.name.toLowerCase()));
      }
    }
  };
  for (const entry of entries) await walk(entry, false);
  return found;
}

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

// Photographs with their masks beside them.
function Pairs({ id, label, files, drawn, onFiles, onDrawn, errors }) {
  const { pairs, orphans } = sorted(files);
  const [painting, setPainting] = useState(null);
  const [broken, setBroken] = useState(new Set());
  const without = pairs.filter(({ image, masks }) => !masks.length && !drawn.has(image)).length;
  const latest = useRef(files);
  latest.current = files;
  const add = async (more) => {
    await Promise.all(more.map(async (file) => { file.isBinary = await isBinary(file); }));
    const known = (file) => latest.current.some((other) => other.name === file.name && other.size === file.size && other.lastModified === file.lastModified);
    onFiles([...latest.current, ...more.filter((file) => !known(file))]);
  };
  const without_ = (gone) => onFiles(files.filter((file) => !gone.includes(file)));
  return html`<div>
    <${Drop} id=${id} label=${label} onFiles=${add} />
    ${pairs.length > 0 && without > 0 && html`<p role="status">${t("masks_missing", { n: without, all: pairs.length })}</p>`}
    <ul class="uploads">${pairs.map(({ image, masks }) => {
      const own = drawn.get(image);
      const told = [image, own, ...masks].flatMap((file) => (file && errors.get(file)) || []);
      return html`<li key=${image.name} class=${told.length ? "wrong" : ""}>
        <div class="two"><${Preview} file=${image} alt=${image.name} />
          ${own ? html`<${Preview} key=${own.lastModified} file=${own} alt=${t("mask_for", { name: image.name })} />` : masks[0] ? html`<${Preview} file=${masks[0]} alt=${t("mask_for", { name: image.name })} />` : html`<span class="blank">${t("mask_missing")}</span>`}</div>
        <p class="file">${image.name} <small>${own ? t("drawn") : masks.map((mask) => mask.name).join(", ")}</small></p>
        ${told.map((detail) => html`<p class="refusal" role="alert">${detail}</p>`)}
        ${broken.has(image) && html`<p class="refusal">${t("no_preview")}</p>`}
        <div class="actions"><button type="button" class="small" aria-label=${`${t(own || masks.length ? "edit_mask" : "draw_mask")}: ${image.name}`} onClick=${() => setPainting({ image, mask: own || masks[0] })}>${t(own || masks.length ? "edit_mask" : "draw_mask")}</button>
          <button type="button" class="small secondary outline" aria-label=${`${t("remove")}: ${image.name}`} onClick=${() => without_([image, ...masks])}>${t("remove")}</button></div></li>`;
    })}
    ${orphans.map((mask) => html`<li key=${mask.name} class="wrong"><div class="two"><span class="blank">?</span><${Preview} file=${mask} alt=${mask.name} /></div>
      <p class="file">${mask.name}</p><p class="refusal">${errors.get(mask)?.join(" ") || t("mask_without")}</p>
      <div class="actions"><button type="button" class="small secondary outline" aria-label=${`${t("remove")}: ${mask.name}`} onClick=${() => without_([mask])}>${t("remove")}</button></div></li>`)}
    </ul>
    ${painting && html`<${Painter} title=${t("mask_for", { name: painting.image.name })} image=${painting.image} mask=${painting.mask}
      onBroken=${() => { setBroken(new Set([...broken, painting.image])); setPainting(null); }} onClose=${() => setPainting(null)}
      onMask=${(blob) => { onDrawn(painting.image, new File([blob], `${painting.image.name.replace(PICTURE, "")}.png`, { type: "image/png", lastModified: Date.now() })); setPainting(null); }} />`}</div>`;
}

function Goods({ id, label, files, onFiles, errors }) {
  return html`<div><${Drop} id=${id} label=${label} onFiles=${(more) => onFiles([...files, ...more])} />
    <ul class="uploads goods">${files.map((file) => html`<li key=${file.name} class=${errors.get(file) ? "wrong" : ""}><${Preview} file=${file} alt=${file.name} /><p class="file">${file.name}</p>
      ${(errors.get(file) || []).map((detail) => html`<p class="refusal" role="alert">${detail}</p>`)}
      <button type="button" class="small secondary outline" aria-label=${`${t("remove")}: ${file.name}`} onClick=${() => onFiles(files.filter((other) => other !== file))}>${t("remove")}</button></li>`)}</ul></div>`;
}

export function NewAdapter() {
  const [options, setOptions] = useState(null);
  const [fields, setFields] = useState({ name: "", object: "", defect: "" });
  const [method, setMethod] = useState(null);
  const [chosen, setChosen] = useState({});
  const [files, setFiles] = useState({ pairs: [], normals: [], held: [], heldNormals: [] });
  const [drawn, setDrawn] = useState(new Map());
  const [errors, setErrors] = useState(new Map());
  const [refused, setRefused] = useState(null);
  const [sent, setSent] = useState(null);
  const top = useRef();
  const base = useRecommended(null);
  useEffect(() => { api.get("options").then((found) => { setOptions(found); setMethod(found.default_method); }, setRefused); }, []);
  if (!options) return html`<${Refused} error=${refused} />`;
  const own = options.methods.find((each) => each.name === method);
  const change = (kind) => (list) => setFiles((before) => ({ ...before, [kind]: list }));
  const draw = (image, file) => setDrawn(new Map(drawn).set(image, file));
  const set = (name) => (event) => setFields({ ...fields, [name]: event.target.value });

  const train = async (event) => {
    event.preventDefault();
    const form = new FormData();
    const order = {};
    const add = (kind, file) => { (order[kind] ||= []).push(file); form.append(`${kind}[]`, file, file.name); };
    for (const [kind, images, masks] of [["pairs", "images", "masks"], ["held", "held_out_images", "held_out_masks"]]) {
      const { pairs, orphans } = sorted(files[kind]);
      for (const pair of pairs) {
        add(images, pair.image);
        for (const mask of drawn.has(pair.image) ? [drawn.get(pair.image)] : pair.masks) add(masks, mask);
      }
      for (const mask of orphans) add(masks, mask);
    }
    for (const file of files.normals) add("normals", file);
    for (const file of files.heldNormals) add("held_out_normals", file);
    for (const [name, value] of Object.entries({ ...fields, method, ...chosen })) if (value !== "" && value !== undefined) form.append(name, value);
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
        const places = (entry.files || (entry.pointer ? [entry.pointer] : [])).map((pointer) => pointer.split("/").slice(1)).map(([kind, index]) => order[kind]?.[Number(index)]).filter(Boolean);
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
      <${Field} id="defect" label=${t("defect")} help=${t("defect_help")} maxlength="80" value=${fields.defect} onInput=${set("defect")} />
    </div>
    <section aria-labelledby="pairs-title"><h2 id="pairs-title">${t("photographs", { n: sorted(files.pairs).pairs.length })}</h2><p><small>${t("drop_help")}</small></p>
      <${Pairs} id="files-pairs" label=${t("drop_pictures")} files=${files.pairs} drawn=${drawn} errors=${errors} onFiles=${change("pairs")} onDrawn=${draw} /></section>
    <section aria-labelledby="goods-title"><h2 id="goods-title">${t("good_parts", { n: files.normals.length })}</h2><p><small>${t("good_parts_help")}</small></p>
      <${Goods} id="files-normals" label=${t("drop_good")} files=${files.normals} errors=${errors} onFiles=${change("normals")} /></section>
    <details><summary>${t("held_out", { n: sorted(files.held).pairs.length })}</summary><p><small>${t("held_out_help")}</small></p>
      <h3>${t("held_images")}</h3><${Pairs} id="files-held" label=${t("drop_pictures")} files=${files.held} drawn=${drawn} errors=${errors} onFiles=${change("held")} onDrawn=${draw} />
      <h3>${t("held_normals")}</h3><${Goods} id="files-held-normals" label=${t("drop_good")} files=${files.heldNormals} errors=${errors} onFiles=${change("heldNormals")} /></details>
    <fieldset><legend><strong>${t("method")}</strong></legend>${options.methods.map(({ name, help }) => html`<div class="choice"><input type="radio" id=${`method-${name}`} name="method" value=${name} checked=${method === name} aria-describedby=${`method-${name}-help`} onChange=${() => { setMethod(name); setChosen({}); }} />
      <label for=${`method-${name}`}>${name}</label> <small id=${`method-${name}-help`}>${methodHelp({ name, help })}</small></div>`)}</fieldset>
    <details><summary>${t("advanced")} (${own.training.length})</summary><p><small>${t("options_help")}</small></p><div class="options">${own.training.map((option) => html`<${OptionInput} key=${`${method}-${option.name}`} kind="training" recommended=${chosen.preset === "paper" ? {} : base.training} option=${option} value=${chosen[option.name]} onChange=${(value) => setChosen({ ...chosen, [option.name]: value })} />`)}</div></details>
    ${sent !== null && html`<div><progress aria-label=${t("progress")} value=${sent} max="1"></progress><p role="status">${t("sending", { n: Math.round(100 * sent) })}</p></div>`}
    <button type="submit" disabled=${sent !== null || !files.pairs.length}>${t("train")}</button>
  </form>`;
}
