// All texts of the page, in English and German. {n} and the like are filled in.
const TEXTS = {
  en: {
    accept: "Approve", adapter: "Adapter", adapters: "Adapters", advanced: "All options", all: "all",
    all_of_them: "approve all shown", approved: "approved", approved_of: "{n} approved, {r} rejected, {u} open of {all}",
    back_to_job: "Back to the job", background_on: "made on the good part {name}", brush: "Brush",
    brush_size: "Size", by_base: "chosen by the base model", cancel: "Cancel", 
    cancelled: "Cancelled.", clear: "Clear", close: "Close", compare: "Good part or pair: move the slider", count: "Number of pairs", created: "Created",
    defect: "Defect", defect_help: "What is wrong with the part, such as “crack”.", default_is: "default: {value}",
    delete: "Delete", delete_really: "Delete {name} and all of its files?", delivered: "Make the dataset",
    download_size: "Download the dataset (zip, {size})", draw_mask: "Draw the mask", drawn: "drawn here",
    drop_good: "Drop photographs of good parts here, or choose files", drop_pictures: "Drop photographs and masks here, or choose files",
    drop_help: "A mask belongs to the photograph with its name: 007.png or 007_mask.png to 007.jpg. Where there is none, draw it here.",
    edit_mask: "Change the mask", eraser: "Eraser", evaluate: "Measure whether the pairs help a detector",
    evaluate_none: "This adapter has no held-out photographs to measure on.", evaluation: "Does it help?", every_format: "The zip always holds images, masks and a manifest. Add layouts:",
    failed: "Failed", filter: "Show", fill: "Fill", fill_help: "Click on the defect: what looks alike and touches is filled.", fit: "Whole picture",
    format_coco: "COCO", format_labelstudio: "Label Studio", format_mvtec: "MVTec AD", format_yolo: "YOLO-seg", formats: "Formats",
    generate: "Generate pairs", generating: "Generate", good_part: "Good part", good_parts: "Good parts ({n})",
    good_parts_help: "A few dozen photographs without a defect. Pairs are then made on them.",
    held_out: "Photographs kept back to measure with ({n})", held_out_help: "Photographs and masks of other parts, which no training sees. A job can then say whether its pairs help.",
    image_of: "Image of pair {n}", job: "Job", jobs: "Jobs",
    key: "API key", key_enter: "This server needs an API key", key_forget: "Forget the key", key_help: "It is kept in this tab until you close it. Whoever runs the server makes one: pairforge keys create NAME",
    key_use: "Use this key", key_wrong: "The server does not accept this key.", language: "Language", left: "{time} left", left_out_reasons: "Left out, by reason", likeness: "likeness {n}",
    looks_like: "Nearest real defect: {name}", loss: "Training loss by step", mask: "Mask", mask_for: "Mask for {name}", mask_missing: "no mask yet", mask_of: "Mask of pair {n}",
    mask_without: "No photograph has a name that fits this mask.", masks_missing: "{n} of {all} photographs have no mask yet: draw it, or drop a file.", method: "Method", move: "Move",
    name: "Name", name_help: "Your name for this adapter.", new_adapter: "New adapter", new_job: "Generate pairs", next: "Next", no: "no", 
    no_jobs: "No jobs yet.", no_pairs_here: "No pair fits this filter.", no_picture: "no picture", no_preview: "The browser cannot show this file; a mask for it must be a file.", not_evaluated: "Not measured: {detail}", not_found: "Nothing is here.",
    notes: "Notes on the files", object: "Object", object_help: "What is photographed, such as “magnetic tile”.", offline: "The server cannot be reached.", open: "open", open_review: "Review the pairs", options_help: "An empty field takes what the base model recommends, and where it recommends nothing the default that is shown.", order: "Sort by", order_made: "number", order_score_down: "best score first", order_score_up: "worst score first",
    outline: "outline", outlines: "Show outlines", pair: "Pair {n}", pair_state: "Pair {n}, score {score}, {state}", pairs: "Pairs", per_second: "per second", photographs: "Photographs and masks ({n})", polygon: "Polygon",
    polygon_help: "Click corner after corner; Enter or a click on the first one closes it.", previous: "Previous", progress: "Progress", queued: "Waiting for a worker.", queued_behind: "Waiting for a worker, {n} ahead.",
    redo: "Redo", reject: "Reject", rejected: "rejected", rejected_checks: "Rejected by the checks ({n})", rejected_help: "The first {n} are kept to look at.", rejected_reasons: "Rejected by the checks", remove: "Remove", review: "Review", review_help: "Keys: arrows move, A approves, R rejects, Enter enlarges, T changes the mask, U takes back.",
    reviewer: "Your name", reviewer_help: "It is written into the dataset, beside every pair that you approve.", samples: "Samples while it trains", sample_step: "Samples at step {n}", save_mask: "Use this mask", score: "Score", scores: "What the checks measured", seed: "Seed", seed_help: "The same request with the same seed gives the same dataset. Empty: a random one.", selection_help: "A new dataset of the {n} approved pairs. It says who approved what, and when.", selection_of: "Approved pairs of another job, chosen by {by}", sending: "Sending, {n} %",
    skip: "Skip to the content", stage_evaluate: "Measuring", stage_finish: "Writing the dataset", stage_prepare: "Preparing", stage_sample: "Generating", stage_train: "Training", stage_masks: "Training the mask network", stage_encode: "Reading the photographs",
    state_cancelled: "cancelled", state_cancelling: "being cancelled", state_failed: "failed", state_queued: "waiting", state_running: "running", state_succeeded: "done", state: "State", step_of: "step {n}",
    take_back: "Take back", take_mask: "Change the mask", tolerance: "Tolerance", touched_up: "mask changed", train: "Train", type_keys: "Arrows move a cursor over the picture, the space bar paints there. B brush, E eraser, P polygon, F fill, H move, + and − zoom, [ and ] size, Ctrl+Z takes back.", undo: "Undo", unit_pairs: "pairs", unit_rows: "trainings", unit_steps: "steps", unit_crops: "crops",
    verdict_helps: "The pairs help", verdict_hurts: "The pairs harm", verdict_unclear: "No more than chance", 
    row: "Trained on", welcome: "From ten photographs to a dataset", welcome_1: "Train an adapter on photographs of a defect and their masks.", welcome_2: "Generate as many new pairs as you need.", welcome_3: "Review them, and download those that you approve.", yes: "yes", zoom_in: "Zoom in", zoom_out: "Zoom out", docs: "API", accepted_of: "{n} of {all} accepted", attempts: "{n} candidates checked",
    reason_empty_mask: "mask empty", reason_full_mask: "mask full", reason_mask_too_small: "mask too small", reason_mask_too_large: "mask too large", reason_border_hugging: "mask hugs a border", reason_off_object: "mask off the object", reason_part_disagrees: "image and part disagree", reason_invisible: "defect invisible", reason_mask_differs_from_change: "mask not where the good part changed", reason_unlike_real: "unlike the real defects", reason_copy_of_real: "copy of a real one", reason_copy_of_accepted: "copy of another pair", reason_not_approved: "rejected by a person",
    held_images: "Held-out photographs and masks", held_normals: "Held-out good parts", pairs_so_far: "Pairs as they are made", show_card: "Show the card",
  },
  de: {
    accept: "Annehmen", adapter: "Adapter", adapters: "Adapter", advanced: "Alle Optionen", all: "alle",
    all_of_them: "alle gezeigten annehmen", approved: "angenommen", approved_of: "{n} angenommen, {r} abgelehnt, {u} offen von {all}",
    back_to_job: "Zurück zum Auftrag", background_on: "auf dem Gutteil {name} erzeugt", brush: "Pinsel",
    brush_size: "Größe", by_base: "wählt das Basismodell", cancel: "Abbrechen", 
    cancelled: "Abgebrochen.", clear: "Leeren", close: "Schließen", compare: "Gutteil oder Paar: den Regler schieben", count: "Anzahl der Paare", created: "Angelegt",
    defect: "Fehler", defect_help: "Was an dem Teil nicht stimmt, etwa „Riss“.", default_is: "Vorgabe: {value}",
    delete: "Löschen", delete_really: "{name} mit allen Dateien löschen?", delivered: "Datensatz erstellen",
    download_size: "Datensatz herunterladen (Zip, {size})", draw_mask: "Maske zeichnen", drawn: "hier gezeichnet",
    drop_good: "Fotos von Gutteilen hierher ziehen oder Dateien wählen", drop_pictures: "Fotos und Masken hierher ziehen oder Dateien wählen",
    drop_help: "Eine Maske gehört zum Foto ihres Namens: 007.png oder 007_mask.png zu 007.jpg. Fehlt sie, zeichnen Sie sie hier.",
    edit_mask: "Maske ändern", eraser: "Radierer", evaluate: "Messen, ob die Paare einem Detektor helfen",
    evaluate_none: "Dieser Adapter hat keine zurückgehaltenen Fotos zum Messen.", evaluation: "Hilft es?", every_format: "Das Zip enthält immer Bilder, Masken und ein Manifest. Dazu:",
    failed: "Fehlgeschlagen", filter: "Zeigen", fill: "Füllen", fill_help: "Auf den Fehler klicken: Ähnliches, das zusammenhängt, wird gefüllt.", fit: "Ganzes Bild",
    format_coco: "COCO", format_labelstudio: "Label Studio", format_mvtec: "MVTec AD", format_yolo: "YOLO-seg", formats: "Formate",
    generate: "Paare erzeugen", generating: "Erzeugen", good_part: "Gutteil", good_parts: "Gutteile ({n})",
    good_parts_help: "Einige Dutzend Fotos ohne Fehler. Die Paare entstehen dann auf ihnen.",
    held_out: "Zum Messen zurückgehaltene Fotos ({n})", held_out_help: "Fotos und Masken anderer Teile, die kein Training sieht. Ein Auftrag kann dann sagen, ob seine Paare helfen.",
    image_of: "Bild des Paars {n}", job: "Auftrag", jobs: "Aufträge",
    key: "API-Schlüssel", key_enter: "Dieser Server verlangt einen API-Schlüssel", key_forget: "Schlüssel vergessen", key_help: "Er bleibt in diesem Tab, bis Sie ihn schließen. Wer den Server betreibt, erstellt einen: pairforge keys create NAME",
    key_use: "Diesen Schlüssel verwenden", key_wrong: "Der Server nimmt diesen Schlüssel nicht an.", language: "Sprache", left: "noch {time}", left_out_reasons: "Weggelassen, nach Grund", likeness: "Ähnlichkeit {n}",
    looks_like: "Ähnlichster echter Fehler: {name}", loss: "Verlust je Trainingsschritt", mask: "Maske", mask_for: "Maske für {name}", mask_missing: "noch keine Maske", mask_of: "Maske des Paars {n}",
    mask_without: "Kein Foto hat einen Namen, der zu dieser Maske passt.", masks_missing: "{n} von {all} Fotos haben noch keine Maske: zeichnen Sie sie, oder ziehen Sie eine Datei her.", method: "Verfahren", move: "Verschieben",
    name: "Name", name_help: "Ihr Name für diesen Adapter.", new_adapter: "Neuer Adapter", new_job: "Paare erzeugen", next: "Weiter", no: "nein", 
    no_jobs: "Noch keine Aufträge.", no_pairs_here: "Kein Paar passt zu diesem Filter.", no_picture: "kein Bild", no_preview: "Der Browser kann diese Datei nicht zeigen; ihre Maske muss eine Datei sein.", not_evaluated: "Nicht gemessen: {detail}", not_found: "Hier ist nichts.",
    notes: "Hinweise zu den Dateien", object: "Gegenstand", object_help: "Was fotografiert ist, etwa „Magnetkachel“.", offline: "Der Server ist nicht erreichbar.", open: "offen", open_review: "Paare prüfen", options_help: "Ein leeres Feld nimmt, was das Basismodell empfiehlt, und wo es nichts empfiehlt, die gezeigte Vorgabe.", order: "Reihenfolge", order_made: "Nummer", order_score_down: "beste zuerst", order_score_up: "schlechteste zuerst",
    outline: "Umriss", outlines: "Umrisse zeigen", pair: "Paar {n}", pair_state: "Paar {n}, Wertung {score}, {state}", pairs: "Paare", per_second: "pro Sekunde", photographs: "Fotos und Masken ({n})", polygon: "Vieleck",
    polygon_help: "Ecke für Ecke klicken; Eingabetaste oder ein Klick auf die erste schließt es.", previous: "Zurück", progress: "Fortschritt", queued: "Wartet auf einen Worker.", queued_behind: "Wartet auf einen Worker, {n} davor.",
    redo: "Wiederholen", reject: "Ablehnen", rejected: "abgelehnt", rejected_checks: "Von den Prüfungen abgelehnt ({n})", rejected_help: "Die ersten {n} werden zum Ansehen behalten.", rejected_reasons: "Von den Prüfungen abgelehnt", remove: "Entfernen", review: "Prüfen", review_help: "Tasten: Pfeile bewegen, A nimmt an, R lehnt ab, Eingabe vergrößert, T ändert die Maske, U nimmt zurück.",
    reviewer: "Ihr Name", reviewer_help: "Er steht im Datensatz neben jedem Paar, das Sie annehmen.", samples: "Proben während des Trainings", sample_step: "Proben nach Schritt {n}", save_mask: "Diese Maske verwenden", score: "Wertung", scores: "Was die Prüfungen gemessen haben", seed: "Startwert", seed_help: "Derselbe Auftrag mit demselben Startwert ergibt denselben Datensatz. Leer: ein zufälliger.", selection_help: "Ein neuer Datensatz der {n} angenommenen Paare. Darin steht, wer was wann angenommen hat.", selection_of: "Angenommene Paare eines anderen Auftrags, ausgewählt von {by}", sending: "Wird gesendet, {n} %",
    skip: "Zum Inhalt", stage_evaluate: "Messen", stage_finish: "Datensatz schreiben", stage_prepare: "Vorbereiten", stage_sample: "Erzeugen", stage_train: "Trainieren", stage_masks: "Maskennetz trainieren", stage_encode: "Fotos lesen",
    state_cancelled: "abgebrochen", state_cancelling: "wird abgebrochen", state_failed: "fehlgeschlagen", state_queued: "wartet", state_running: "läuft", state_succeeded: "fertig", state: "Zustand", step_of: "Schritt {n}",
    take_back: "Zurücknehmen", take_mask: "Maske ändern", tolerance: "Toleranz", touched_up: "Maske geändert", train: "Trainieren", type_keys: "Pfeile bewegen einen Zeiger über das Bild, die Leertaste malt dort. B Pinsel, E Radierer, P Vieleck, F Füllen, H Verschieben, + und − Zoom, [ und ] Größe, Strg+Z nimmt zurück.", undo: "Rückgängig", unit_pairs: "Paare", unit_rows: "Trainings", unit_steps: "Schritte", unit_crops: "Ausschnitte",
    verdict_helps: "Die Paare helfen", verdict_hurts: "Die Paare schaden", verdict_unclear: "Nicht mehr als Zufall", 
    row: "Trainiert mit", welcome: "Von zehn Fotos zum Datensatz", welcome_1: "Einen Adapter mit Fotos eines Fehlers und ihren Masken trainieren.", welcome_2: "So viele neue Paare erzeugen, wie Sie brauchen.", welcome_3: "Die Paare prüfen und die angenommenen herunterladen.", yes: "ja", zoom_in: "Vergrößern", zoom_out: "Verkleinern", docs: "API", accepted_of: "{n} von {all} angenommen", attempts: "{n} Kandidaten geprüft",
    reason_empty_mask: "Maske leer", reason_full_mask: "Maske voll", reason_mask_too_small: "Maske zu klein", reason_mask_too_large: "Maske zu groß", reason_border_hugging: "Maske am Rand", reason_off_object: "Maske neben dem Gegenstand", reason_part_disagrees: "Bild und Teil passen nicht zusammen", reason_invisible: "Fehler unsichtbar", reason_mask_differs_from_change: "Maske nicht dort, wo sich das Gutteil änderte", reason_unlike_real: "anders als die echten Fehler", reason_copy_of_real: "Kopie eines echten", reason_copy_of_accepted: "Kopie eines anderen Paars", reason_not_approved: "von einem Menschen abgelehnt",
    held_images: "Zurückgehaltene Fotos und Masken", held_normals: "Zurückgehaltene Gutteile", pairs_so_far: "Paare, sobald sie entstehen", show_card: "Karte zeigen",
  },
};

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
  const text = TEXTS[chosen][key] ?? TEXTS.en[key] ?? key.replace(/^(reason|stage|unit|state|format)_/, "").replaceAll("_", " ");
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

export const number = (value) => Number(value).toLocaleString(chosen, { maximumSignificantDigits: 3 });

export function size(bytes) {
  const [value, unit] = bytes > 1e9 ? [bytes / 1e9, "GB"] : bytes > 1e6 ? [bytes / 1e6, "MB"] : [bytes / 1e3, "kB"];
  return `${number(value)} ${unit}`;
}
