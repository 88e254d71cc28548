/** An upload on its way and its job, until that ends: how far it is, what was refused, and ways to begin and to stop. */

import * as api from "./api.js";
import { button, make, number, plural } from "./dom.js";
import { showProblem } from "./problems.js";

const WAIT_S = 2;
const ENDED = new Set(["done", "failed", "cancelled"]);
const SHOWN = 1_000;

export const hasEnded = (job) => ENDED.has(job.state);

/** What jobs refused, as a list; of very many the first ones. @param {HTMLElement} list @param {{file: string, reason: string}[]} refused @param {number} count of all */
export function showRefused(list, refused, count) {
  const shown = refused.slice(0, SHOWN);
  list.replaceChildren(...shown.map((one) => make("li", {}, `${one.file}: ${one.reason}`)));
  if (count > shown.length) list.append(make("li", {}, `and ${number(count - shown.length)} more`));
}

/** @param {{unit: string, onChange: () => void}} options what is counted, and what follows once something was added */
export function createProgress({ unit, onChange }) {
  const bar = make("progress", { max: 1, value: 0, "aria-label": `${unit}s worked through`, hidden: true });
  const status = make("p", { role: "status" });
  const problem = make("div");
  const refused = make("ul", { class: "soft" });
  const go = make("button", { class: "first" }, "Add");
  const stop = button("Cancel", () => cancel(), { hidden: true });
  let cancel = () => {};

  /**
   * Sends each part, waits for its job, and goes on with the next; says how it ended, and whether it was well.
   * @param {{words: string, form: () => FormData}[]} parts @param {number | null} total null: the job knows @returns {Promise<boolean>}
   */
  async function send(parts, total = null) {
    const sending = new AbortController();
    const known = [];
    let [added, through, left, job, isStopped] = [0, 0, 0, null, false];
    cancel = () => {
      isStopped = true;
      if (job && !hasEnded(job)) api.cancelJob(job.job_id).catch((error) => showProblem(problem, error));
      else sending.abort();
    };
    const stay = (event) => event.preventDefault(); // what was not sent goes with the page
    for (const place of [refused, problem]) place.replaceChildren();
    bar.hidden = stop.hidden = false;
    if (document.activeElement === go) stop.focus();
    go.disabled = true;
    addEventListener("beforeunload", stay);
    const told = (words) => (status.textContent = words);
    try {
      for (const [index, part] of parts.entries()) {
        told(`Sending ${part.words} …`);
        job = null;
        job = await api.addJob(part.form(), sending.signal);
        if (isStopped) cancel();
        if (index === parts.length - 1) removeEventListener("beforeunload", stay);
        for (;;) {
          const all = total ?? job.counts.total;
          Object.assign(bar, { max: all || 1, value: through + job.counts.done });
          if (hasEnded(job)) break;
          told(`${job.state === "waiting" ? "Waiting" : "Adding"}: ${number(bar.value)} of ${plural(all ?? 0, unit)} done.`);
          job = await api.job(job.job_id, WAIT_S);
        }
        through += job.counts.done;
        added += job.counts.added;
        left += job.counts.refused;
        known.push(...job.refused.slice(0, SHOWN - known.length));
        showRefused(refused, known, left);
        if (job.state === "failed") throw new api.Problem(500, `${job.detail ?? "the service's log says why"}${parts.length > 1 ? `. ${plural(added, unit)} added before.` : ""}`);
        if (job.state === "cancelled" || isStopped) {
          told(`Cancelled: ${plural(added, unit)} added before.`);
          return false;
        }
      }
      told(`${plural(added, unit)} added${left ? `, ${number(left)} refused:` : "."}`);
      return true;
    } catch (error) {
      told(error.name === "AbortError" ? `Cancelled: ${plural(added, unit)} added before.` : "");
      const isOn = job && !hasEnded(job); // the job, only we do not see it
      if (isOn) told("What was sent is still being added: see Jobs.");
      if (error.name !== "AbortError") showProblem(problem, error, job?.state === "failed" ? { head: "The job failed." } : {});
      return false;
    } finally {
      removeEventListener("beforeunload", stay);
      go.disabled = false;
      if (document.activeElement === stop) status.focus();
      stop.hidden = true;
      if (through) onChange();
    }
  }
  status.tabIndex = -1;
  return { buttons: [go, stop], nodes: [bar, status, problem, refused], send };
}
