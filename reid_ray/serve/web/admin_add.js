/** Adding pictures: uploaded in portions, each a job of the service, whose progress is shown until it ends. */

import * as api from "./api.js";
import { isWhole, kindOf, nameOf, typedValue } from "./columns.js";
import { button, make, plural } from "./dom.js";
import { showProblem } from "./problems.js";

const PORTION = 100;
const PORTION_BYTES = 32 << 20;
const WAIT_S = 2;
const ENDED = new Set(["done", "failed", "cancelled"]);

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

export function createAdding({ columns, onChange }) {
  const bar = make("progress", { max: 1, value: 0, "aria-label": "Pictures added", hidden: true });
  const status = make("p", { role: "status" });
  const problem = make("div");
  const refused = make("ul", { class: "soft" });
  const files = make("input", { type: "file", accept: "image/*", multiple: true, required: true, id: "add-files" });
  const facts = columns
    .filter((column) => kindOf(column) === "value")
    .map((column) => [column, make("input", { type: isWhole(column) ? "number" : "text", id: `add-${column.name}` })]);
  const caption = make("input", { type: "checkbox", id: "add-caption" });
  const go = make("button", { class: "first" }, "Add");
  const stop = button("Cancel", () => stopping(), { hidden: true });
  let stopping = () => {};
  const form = make(
    "form",
    { class: "stack", onsubmit: add },
    make("label", { class: "wide" }, "Pictures", files),
    make("details", {}, make("summary", {}, "What is known of all of them"), make("div", { class: "row" }, ...facts.map(([column, field]) => make("label", {}, nameOf(column.name), field)))),
    make("label", {}, caption, "Describe each by the captioning model, where the service has one"),
    make("div", { class: "row" }, go, stop),
    bar,
    status,
    problem,
    refused,
  );

  function known() {
    const said = facts.filter(([, field]) => field.value !== "").map(([column, field]) => [column.name, typedValue(field.value, column)]);
    return Object.fromEntries(said);
  }

  async function add(event) {
    event.preventDefault();
    const chosen = [...files.files];
    const shared = known();
    let added = 0;
    let through = 0;
    let stopped = false;
    refused.replaceChildren();
    problem.replaceChildren();
    Object.assign(bar, { hidden: false, max: chosen.length, value: 0 });
    go.disabled = true;
    stop.hidden = false;
    try {
      for (const portion of portions(chosen)) {
        status.textContent = `Sending ${plural(portion.length, "picture")} …`;
        let job = await api.addJob(formOf(portion, shared, caption.checked));
        stopping = () => {
          stopped = true;
          api.cancelJob(job.job_id).catch((error) => showProblem(problem, error));
        };
        for (;;) {
          bar.value = through + job.counts.done;
          if (ENDED.has(job.state)) break;
          status.textContent = `${job.state === "waiting" ? "Waiting" : "Adding"}: ${bar.value} of ${plural(chosen.length, "picture")} done.`;
          job = await api.job(job.job_id, WAIT_S);
        }
        through += job.counts.done;
        added += job.counts.added;
        refused.append(...job.refused.map((one) => make("li", {}, `${one.file}: ${one.reason}`)));
        if (job.state !== "done" || stopped) throw new api.Problem(409, `The job was ${job.state}${job.detail ? `: ${job.detail}` : ""}. ${added} of ${chosen.length} pictures were added before.`);
      }
      status.textContent = `${plural(added, "picture")} added${refused.childElementCount ? `, ${refused.childElementCount} refused:` : "."}`;
      files.value = "";
    } catch (error) {
      status.textContent = "";
      showProblem(problem, error);
    } finally {
      go.disabled = false;
      stop.hidden = true;
      if (through) onChange();
    }
  }

  return (place) => place.replaceChildren(form);
}

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
