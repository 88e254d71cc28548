/** What an administrator looks up: erasures with their receipts, generations and snapshots, the audit log and its verification. */

import * as api from "./api.js";
import { button, download, make, number, plural } from "./dom.js";
import { showProblem } from "./problems.js";

const words = (value) => (value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value));

/** Rows as a table; columns in the order in which they are met. */
function table(title, rows, last = (_row) => null) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const line = (row) => make("tr", {}, ...names.map((name) => make("td", {}, words(row[name]))), make("td", {}, last(row)));
  const head = make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name.replaceAll("_", " "))), make("td", {}));
  return make("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": title }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows.map(line))));
}

/** Fills a place, or says why not and offers to try again. */
async function fill(place, load) {
  place.replaceChildren(make("p", { class: "soft", role: "status" }, "Loading …"));
  try {
    place.replaceChildren(...(await load()).filter(Boolean));
  } catch (error) {
    showProblem(place, error, { again: () => fill(place, load) });
  }
}

export function erasureList(place) {
  const receipt = async (row) => download(`receipt-${row.request}.json`, new Blob([`${JSON.stringify(await api.erasure(row.request), null, 1)}\n`], { type: "application/json" }));
  return fill(place, async () => {
    const answer = await api.erasures();
    const rows = Array.isArray(answer) ? answer : answer.erasures;
    if (!rows.length) return [make("p", {}, "Nobody was erased from this gallery.")];
    const problem = make("div");
    const last = (row) => button("Receipt", () => receipt(row).catch((error) => showProblem(problem, error)), { class: "plain", "aria-label": `Receipt of ${row.request}` });
    return [table("Erasures", rows, last), problem];
  });
}

/** Compacts, and waits for it. */
async function compacted() {
  let job = await api.compact();
  while (["waiting", "running"].includes(job.state)) job = await api.job(job.job_id, 5);
  if (job.state !== "done") throw new api.Problem(409, `Compacting ${job.state}: ${job.detail ?? ""}`);
}

export const generationList = ({ onChange }) => function show(place) {
  return fill(place, async () => {
    const { generation, segments, log, snapshots } = await api.generations();
    const problem = make("div");
    const then = (act, isChange = false) => async () => {
      place.inert = true;
      try {
        await act();
        if (isChange) onChange();
        await show(place);
      } catch (error) {
        showProblem(problem, error);
      } finally {
        place.inert = false;
      }
    };
    const name = make("input", { type: "text", id: "snapshot-name", required: true, maxLength: 100 });
    const make_ = (event) => (event.preventDefault(), then(() => api.makeSnapshot(name.value.trim()))());
    const twice = (label, act, isChange) => {
      const sure = button(`${label}: sure?`, then(act, isChange), { class: "bad" });
      const ask = button(label, () => (ask.replaceWith(sure), sure.focus()), { class: "plain" });
      return ask;
    };
    const last = (row) => make("div", { class: "row" }, twice(`Restore ${row.name}`, () => api.restoreSnapshot(row.name), true), twice(`Drop ${row.name}`, () => api.dropSnapshot(row.name)));
    return [
      make("p", {}, `Generation ${number(generation)}: ${plural(segments.length, "segment")}, and a log of ${plural(log.writes, "write")} with ${plural(log.items, "item")}.`),
      segments.length > 0 && table("Segments", segments),
      snapshots.length ? table("Snapshots", snapshots, last) : make("p", {}, "There are no snapshots."),
      make("form", { class: "row", onsubmit: make_ }, make("label", {}, "Name", name), make("button", {}, "Take a snapshot")),
      make("div", { class: "row" }, button("Compact now", then(compacted)), make("span", { class: "soft" }, "merges the gallery's files; searches go on")),
      problem,
    ];
  });
};

const shown = ({ n, at, who, verb, outcome, purpose, items, what }) => ({ number: n, at, who, verb, outcome, purpose, items, what });

export function auditLog(place) {
  return fill(place, async () => {
    const said = make("p", { role: "status" });
    const problem = make("div");
    const pages = make("div", { class: "stack" });
    const earlier = button("Earlier entries", () => load().catch((error) => showProblem(problem, error)));
    let before;
    async function load() {
      const { records, before: next } = await api.audit(before);
      if (records.length) pages.append(table("Audit log, latest first", records.map(shown)));
      before = next;
      earlier.hidden = before === null;
      if (!pages.childElementCount) pages.append(make("p", {}, "The audit log is empty."));
    }
    const verify = async () => {
      said.textContent = "Verifying …";
      try {
        const { sound, records, head, fault } = await api.verifyAudit();
        said.className = sound ? "good" : "wrong";
        said.textContent = sound ? `All ${plural(records, "record")} are as they were written. Note the head elsewhere: ${head}` : `The log is not as it was written: ${fault}`;
      } catch (error) {
        said.textContent = "";
        showProblem(problem, error);
      }
    };
    await load();
    return [make("div", { class: "row" }, button("Verify the log", verify), said), problem, pages, earlier];
  });
}
