// Files that were dropped: what is a photograph, what is a mask, and which defect type they show, by names and folders.
const WORDS = "(?:ground[ _-]?truth|masks?|gt|labels?|seg(?:mentation)?s?|annotations?|anno|defects?)";
const SUFFIX = new RegExp(`[ ._-]${WORDS}(?:[ ._-]?\\(?\\d{1,6}\\)?)?$`);
const PREFIX = new RegExp(`^(?:${WORDS}(?:[ ._-](?=.)|(?=\\d))|task-\\d+-annotation-)`);
const PICTURE = /\.(png|jpe?g|bmp|tiff?|webp)$/i;
const HIDDEN = /^(\.|Thumbs\.db$)/;
const OF_MASKS = new RegExp(`^${WORDS}$`, "i");
const OF_GOOD_PARTS = /^(good|normals?|ok|defect[ _-]?free)$/i;
const OF_IMAGES = /^(images?|imgs?|photos?|photographs|pictures)$/i;
const OF_DATA_SETS = /^(data|train|test|test_public|val|valid)$/i;

export const withoutEnding = (name) => name.replace(PICTURE, "");
const stem = (name) => withoutEnding(name).toLowerCase();
const bare = (name) => stem(name).replace(SUFFIX, "").replace(PREFIX, "");

// A name of a defect type as the API takes it in a field's name.
export const typeName = (text) => text.normalize("NFC").replace(/[[\]"\s\p{C}]+/gu, " ").trim().slice(0, 80);

export const shownName = (file) => file.path || file.name;
export const keyOf = (file) => `${file.defect || ""}/${shownName(file)}`;

// Files with further ones; a file that is there already is not taken twice.
export function joined(files, more) {
  const same = (file) => (other) => keyOf(other) === keyOf(file) && other.size === file.size && other.lastModified === file.lastModified;
  return [...files, ...more.filter((file) => !files.some(same(file)))];
}

// Photographs with their masks, and the masks of none; the API has the last word. Files of different folders may have the same names.
export function matched(files) {
  const images = [];
  const masks = [];
  for (const file of files) (SUFFIX.test(stem(file.name)) || PREFIX.test(stem(file.name)) || file.isInMasks ? masks : images).push(file);
  // Of two files with one stem, the black and white one is the mask.
  const photographs = [];
  for (const file of images) {
    const twins = images.filter((other) => stem(other.name) === stem(file.name) && other.defect === file.defect);
    const photograph = twins.find((twin) => !twin.isBinary) || twins[0];
    (file === photograph ? photographs : masks).push(file);
  }
  const pairs = photographs.map((image) => ({ image, masks: [] }));
  const orphans = [];
  for (const mask of masks) {
    const named = pairs.filter(({ image }) => [stem(mask.name), bare(mask.name)].includes(stem(image.name)));
    const own = named.filter(({ image }) => image.defect === mask.defect);
    const fits = own.length || named.length !== 1 ? own : named;
    for (const pair of fits) pair.masks.push(mask);
    if (!fits.length) orphans.push(mask);
  }
  return { pairs, orphans };
}

// Whether a picture has no other levels than black and white, looked at in a few places.
export async function isBinary(file) {
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

// Files by what can be done with them: `files` are pictures, with what their folders say (`path`, `defect`, `isInMasks`, `isGood`); `others` and `unread`
// are names of those that are no pictures, and of those that cannot be read.
class Found {
  files = [];
  others = [];
  unread = [];

  async take(file, folders) {
    const path = [...folders, file.name].join("/");
    if (HIDDEN.test(file.name)) return;
    if (!PICTURE.test(file.name)) { this.others.push(path); return; }
    try {
      if (!(await file.slice(0, 1).arrayBuffer()).byteLength) throw new Error("empty");
      this.files.push(folders.length ? Object.assign(file, inFolders(folders, file.name)) : file);
    } catch {
      this.unread.push(path);
    }
  }

  async walk(entry, folders) {
    try {
      if (entry.isFile) { await this.take(await new Promise((resolve, reject) => entry.file(resolve, reject)), folders); return; }
      const reader = entry.createReader();
      for (let more; (more = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length;) {
        for (const each of more) await this.walk(each, [...folders, entry.name]);
      }
    } catch {
      this.unread.push([...folders, entry.name].join("/"));
    }
  }
}

// Folders list their files in any order.
function inOrder(found) {
  found.files.sort((a, b) => shownName(a).localeCompare(shownName(b), "en", { numeric: true }));
  return found;
}

// What was dropped. What a drop holds is gone once anything was waited for, so it is asked for at once; without an entry, reading fails and the file is named.
export async function dropped(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file").map((item) => [item.webkitGetAsEntry?.(), item.getAsFile()]);
  const found = new Found();
  for (const [entry, file] of items) {
    if (entry) await found.walk(entry, []);
    else if (file) await found.take(file, []);
  }
  return inOrder(found);
}

// What was chosen, as files or as a folder.
export async function chosen(files) {
  const found = new Found();
  for (const file of [...files]) await found.take(file, file.webkitRelativePath.split("/").slice(0, -1));
  return inOrder(found);
}

// The innermost folder that is called neither like pictures nor like a part of a data set has the name of the defect type,
// as in crack/image, crack/mask and test/crack.
function inFolders(folders, name) {
  const defect = folders.findLast((folder) => ![OF_MASKS, OF_IMAGES, OF_DATA_SETS].some((words) => words.test(folder))) || "";
  const kind = folders.findLast((folder) => OF_MASKS.test(folder) || OF_IMAGES.test(folder)) || "";
  return {
    path: [...folders, name].join("/"),
    defect: typeName(defect),
    isInMasks: OF_MASKS.test(kind),
    isGood: folders.some((folder) => OF_GOOD_PARTS.test(folder)),
  };
}
