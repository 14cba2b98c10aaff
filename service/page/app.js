// The frame of the page: navigation, key, and the view that the address names.
import { render } from "./vendor/preact.js";
import * as api from "./api.js";
import { language, languages, speak, t } from "./texts.js";
import { Dialog, html, mayLeave, Refused, useEffect, useRef, useState } from "./ui.js";
import { AdapterView, AdaptersView } from "./views/adapters.js";
import { NewAdapter } from "./views/new_adapter.js";
import { JobView, JobsView, NewJob } from "./views/jobs.js";
import { Review } from "./views/review.js";

const VIEWS = [
  [/^#\/adapters\/new$/, () => html`<${NewAdapter} />`],
  [/^#\/adapters\/(adp_\w+)\/generate$/, (id) => html`<${NewJob} key=${id} adapter=${id} />`],
  [/^#\/adapters\/(adp_\w+)$/, (id) => html`<${AdapterView} key=${id} id=${id} />`],
  [/^#\/jobs$/, () => html`<${JobsView} />`],
  [/^#\/jobs\/(job_\w+)\/review$/, (id) => html`<${Review} key=${id} id=${id} />`],
  [/^#\/jobs\/(job_\w+)$/, (id) => html`<${JobView} key=${id} id=${id} />`],
  [/^(#\/adapters|#?\/?)$/, () => html`<${AdaptersView} />`],
];

function App() {
  const [hash, setHash] = useState(location.hash);
  const [, setLanguage] = useState(language());
  const [asked, setAsked] = useState(null);
  const main = useRef();
  const at = useRef(location.hash);
  useEffect(() => {
    const moved = () => {
      if (location.hash === at.current) return;
      if (!mayLeave()) { history.replaceState(null, "", at.current || "#/"); return; }
      at.current = location.hash;
      setHash(location.hash);
      scrollTo(0, 0);
      main.current?.focus({ preventScroll: true });
    };
    addEventListener("hashchange", moved);
    api.whenKeyIsNeeded((entered) => setAsked(() => entered));
    return () => removeEventListener("hashchange", moved);
  }, []);
  const found = VIEWS.map(([pattern, view]) => [hash.match(pattern), view]).find(([match]) => match);
  const current = (start) => (hash.startsWith(start) ? "page" : undefined);
  return html`
    <a class="skip" href="#content" onClick=${(event) => { event.preventDefault(); main.current.focus(); }}>${t("skip")}</a>
    <header class="frame"><nav aria-label="PairForge">
      <a class="brand" href="#/adapters"><img src="page/icon.svg" alt="" width="24" height="24" /> PairForge</a>
      <a href="#/adapters" aria-current=${current("#/adapters") || (hash === "" ? "page" : undefined)}>${t("adapters")}</a>
      <a href="#/jobs" aria-current=${current("#/jobs")}>${t("jobs")}</a>
      <span class="space"></span>
      <a href="docs">${t("docs")}</a>
      ${api.key.get() && html`<button type="button" class="plain" onClick=${() => { api.key.set(""); location.reload(); }}>${t("key_forget")}</button>`}
      <select class="language" aria-label=${t("language")} value=${language()} onChange=${(event) => { speak(event.target.value); setLanguage(event.target.value); }}>
        ${languages.map((name) => html`<option value=${name}>${name.toUpperCase()}</option>`)}
      </select>
    </nav></header>
    <main id="content" class="frame" ref=${main} tabindex="-1">${found ? found[1](...found[0].slice(1)) : html`<p>${t("not_found")}</p>`}</main>
    ${asked && html`<${KeyDialog} onKey=${() => { setAsked(null); asked(); }} />`}`;
}

function KeyDialog({ onKey }) {
  const [wrong, setWrong] = useState(api.key.get() !== null);
  const [refused, setRefused] = useState(null);
  const [value, setValue] = useState("");
  const use = async (event) => {
    event.preventDefault();
    try {
      await api.enter(value.trim());
      onKey();
    } catch (error) {
      setWrong(error.status === 401);
      setRefused(error.status === 401 ? null : error);
    }
  };
  return html`<${Dialog} title=${t("key_enter")} onClose=${() => {}}>
    <form onSubmit=${use}>
      <label>${t("key")}<input type="password" autocomplete="off" required value=${value} aria-invalid=${wrong || undefined} aria-describedby="key-help"
        onInput=${(event) => setValue(event.target.value)} /></label>
      ${wrong && html`<p role="alert" class="refusal">${t("key_wrong")}</p>`}
      <${Refused} error=${refused} />
      <p id="key-help"><small>${t("key_help")}</small></p>
      <button type="submit">${t("key_use")}</button>
    </form>
  <//>`;
}

speak(language());
render(html`<${App} />`, document.getElementById("app"));
