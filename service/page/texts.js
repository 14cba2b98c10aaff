// Texts in the chosen language: the browser's, until somebody chooses another.
import de from "./texts/de.js";
import deOptions from "./texts/de_options.js";
import en from "./texts/en.js";

const TEXTS = { en, de };
const DESCRIBED = { de: deOptions }; // what the API describes in English
const KEPT = "pairforge-language";

export const languages = Object.keys(TEXTS);
let chosen = sessionStorage.getItem(KEPT) || (navigator.language.startsWith("de") ? "de" : "en");

export const language = () => chosen;

export function speak(name) {
  chosen = name in TEXTS ? name : "en";
  sessionStorage.setItem(KEPT, chosen);
  document.documentElement.lang = chosen;
}

// The text of a key; an unknown key is shown as words.
export function t(key, values = {}) {
  const text = TEXTS[chosen][key] ?? TEXTS.en[key] ?? key.replace(/^(reason|stage|unit|state|format|problem)_/, "").replaceAll("_", " ");
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

// What an option means; `kind` is training or sampling, where that makes a difference.
export function optionHelp({ name, help }, kind = "") {
  const own = DESCRIBED[chosen]?.options;
  return own?.[`${kind}_${name}`] ?? own?.[name] ?? help;
}

export const methodHelp = ({ name, help }) => DESCRIBED[chosen]?.methods[name] ?? help;

export const percent = (share) => (100 * share).toLocaleString(chosen, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
export const number = (value) => Number(value).toLocaleString(chosen, { maximumSignificantDigits: 3 });

export function size(bytes) {
  const [value, unit] = bytes > 1e9 ? [bytes / 1e9, "GB"] : bytes > 1e6 ? [bytes / 1e6, "MB"] : [bytes / 1e3, "kB"];
  return `${number(value)} ${unit}`;
}
