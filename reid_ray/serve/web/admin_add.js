/** Adding pictures, uploaded in portions, and a table of pictures or embedded rows: each upload is a job of the service. */

import { createProgress } from "./admin_progress.js";
import { isWhole, kindOf, nameOf, typedValue } from "./columns.js";
import { button, make, number, plural } from "./dom.js";

const PORTION = 100;
const PORTION_BYTES = 32 << 20;
const CAPTIONED = "Describe each by the captioning model, where the service has one";
const COLUMNS =
  "A table of pictures has the columns image (the bytes of a JPEG, PNG or other picture) and image_id or item_id (a name that no other picture has); " +
  "each further column, such as camera_id, is kept with the picture. Or it is a table that the embed job wrote, with the column embedding.";

/** Files in portions of at most so many, and so many bytes: each is a job. @param {File[]} files */
function portions(files) {
  const found = [[]];
  let bytes = 0;
  for (const file of files) {
    if (found.at(-1).length && (found.at(-1).length >= PORTION || bytes + file.size > PORTION_BYTES)) {
      found.push([]);
      bytes = 0;
    }
    found.at(-1).push(file);
    bytes += file.size;
  }
  return found;
}

/** @param {{columns: {name: string, type: string}[], onChange: () => void, onJobs: () => void}} options */
export function createAdding({ columns, onChange, onJobs }) {
  const progress = createProgress({ unit: "picture", onChange });
  const files = make("input", { type: "file", accept: "image/*", multiple: true, required: true, id: "add-files" });
  const facts = columns
    .filter((column) => kindOf(column) === "value")
    .map((column) => [column, make("input", { type: isWhole(column) ? "number" : "text", id: `add-${column.name}` })]);
  const caption = make("input", { type: "checkbox", id: "add-caption" });
  const form = make(
    "form",
    { class: "stack", onsubmit: add },
    make("label", { class: "wide" }, "Pictures", files),
    make("details", {}, make("summary", {}, "What is known of all of them"), make("div", { class: "row" }, ...facts.map(([column, field]) => make("label", {}, nameOf(column.name), field)))),
    make("label", {}, caption, CAPTIONED),
    make("div", { class: "row" }, ...progress.buttons, button("All jobs", onJobs, { class: "plain" })),
    ...progress.nodes,
  );

  function known() {
    const said = facts.filter(([, field]) => field.value !== "").map(([column, field]) => [column.name, typedValue(field.value, column)]);
    return Object.fromEntries(said);
  }

  async function add(event) {
    event.preventDefault();
    const chosen = [...files.files];
    const [shared, captioned] = [known(), caption.checked];
    const parts = portions(chosen).map((portion) => ({ words: plural(portion.length, "picture"), form: () => formOf(portion, shared, captioned) }));
    if (await progress.send(parts, chosen.length)) files.value = "";
  }

  return (place) => place.replaceChildren(form);
}

/** A table is added as one job. @param {{onChange: () => void, onJobs: () => void}} options */
export function createTableAdding({ onChange, onJobs }) {
  const progress = createProgress({ unit: "row", onChange });
  const file = make("input", { type: "file", accept: ".parquet", required: true, id: "add-table-file", "aria-describedby": "add-table-columns" });
  const caption = make("input", { type: "checkbox", id: "add-table-caption" });
  const form = make(
    "form",
    { class: "stack", onsubmit: add },
    make("p", { id: "add-table-columns" }, COLUMNS),
    make("label", { class: "wide" }, "One Parquet file", file),
    make("label", {}, caption, CAPTIONED),
    make("div", { class: "row" }, ...progress.buttons, button("All jobs", onJobs, { class: "plain" })),
    ...progress.nodes,
  );

  async function add(event) {
    event.preventDefault();
    const [table, captioned] = [file.files[0], caption.checked];
    const body = new FormData();
    body.append("table", table, table.name);
    body.append("caption", String(captioned));
    if (await progress.send([{ words: `${table.name}, ${bytes(table.size)}`, form: () => body }])) file.value = "";
  }

  return (place) => place.replaceChildren(form);
}

const bytes = (size) => (size < 1 << 20 ? `${number(Math.ceil(size / 1024))} KiB` : `${number(Math.round(size / (1 << 20)))} MiB`);

/** Uploads have names of their own: two folders may hold a picture of one name. */
function formOf(portion, shared, caption) {
  const form = new FormData();
  const names = new Set();
  const items = portion.map((file) => {
    const given = file.name.replace(/["\\\p{Cc}]/gu, "_"); // which forms write otherwise
    let name = given;
    for (let copy = 2; names.has(name); copy++) name = `${copy}_${given}`;
    names.add(name);
    form.append("image", file, name);
    return { file: name, ...shared };
  });
  form.append("items", JSON.stringify(items));
  form.append("caption", String(caption));
  return form;
}
