/** The service's jobs, the latest first, whoever asked for them: those that have not ended are looked after until they do, and can be cancelled. */

import * as api from "./api.js";
import { hasEnded, showRefused } from "./admin_progress.js";
import { button, make, number, plural } from "./dom.js";
import { clearProblem, showProblem } from "./problems.js";

const PAGE = 20;
const WAIT_S = 2; // between looks at a job that has not ended; its end is seen at once
const QUIET_MS = 10_000; // between looks where all have
const KINDS = { pictures: "Pictures", table: "Table", compact: "Compaction" };

/** @param {{onChange: () => void}} options what follows once a job that was looked after has added something */
export function createJobs({ onChange }) {
  let looking = new AbortController();

  return function show(place) {
    looking.abort();
    looking = new AbortController();
    const { signal } = looking;
    const said = make("p", { role: "status" }, "Loading …");
    const problem = make("div");
    const jobs = createList(problem);
    const earlier = button("Earlier jobs", () => more().catch((error) => showProblem(problem, error)), { hidden: true });
    let before; // where the earlier ones begin; not known yet
    let ended = "";
    place.replaceChildren(said, problem, jobs.node, earlier);

    function take(job) {
      if (!jobs.put(job)) return;
      ended = ` ${KINDS[job.kind]}: ${job.state}, ${countsOf(job)}.`;
      if (job.counts.added) onChange();
    }

    /** A job alone; one that is remembered no more goes. */
    async function ask(id, waitS) {
      try {
        take(await api.job(id, waitS, signal));
      } catch (error) {
        if (error.status !== 404) throw error;
        jobs.drop(id);
      }
    }

    async function look() {
      const [latest, unfinished] = await Promise.all([api.jobs({ limit: PAGE }, signal), api.jobs({ of: "unfinished" }, signal)]);
      const met = [...latest.jobs, ...unfinished.jobs];
      met.forEach(take);
      const ids = new Set(met.map((job) => job.job_id));
      for (const job of jobs.unfinished()) if (!ids.has(job.job_id)) await ask(job.job_id, 0); // it ended, and many came after it
      if (before === undefined) before = latest.before;
      tell();
    }

    async function more() {
      const page = await api.jobs({ limit: PAGE, before }, signal);
      page.jobs.forEach(take);
      before = page.before;
      tell();
    }

    function tell() {
      earlier.hidden = !before;
      const all = jobs.unfinished();
      const running = all.filter((job) => job.state === "running").length;
      const waiting = all.length - running;
      const words = [running && plural(running, "job runs", "jobs run"), waiting && plural(waiting, "job waits", "jobs wait")].filter(Boolean).join(", ");
      const sentence = jobs.size() ? `${words || "No job runs"}.${ended}` : "There are no jobs. They are remembered for some days.";
      if (said.textContent !== sentence) said.textContent = sentence; // said once, not at every look
    }

    async function watch() {
      try {
        do {
          await look();
          clearProblem(problem);
          const oldest = jobs.unfinished().at(-1);
          if (oldest) await ask(oldest.job_id, WAIT_S);
          else await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
        } while (!signal.aborted && jobs.node.checkVisibility());
      } catch (error) {
        if (error.name === "AbortError") return;
        if (!jobs.size()) said.textContent = "";
        showProblem(problem, error, { again: watch });
      }
    }
    watch();
  };
}

/** The list: each job once, in the order in which they were asked for, the latest first. */
function createList(problem) {
  const node = make("ol", { class: "jobs", "aria-label": "Jobs, the latest first" });
  /** @type {ReturnType<typeof createRow>[]} */
  let rows = [];

  /** Shows a job; returns whether it has ended since it was shown before. */
  function put(job) {
    const row = rows.find((each) => each.job().job_id === job.job_id);
    if (row) {
      const isNews = !hasEnded(row.job()) && hasEnded(job);
      row.show(job);
      return isNews;
    }
    const made = createRow(job, problem);
    const place = rows.findIndex((each) => each.job().asked < job.asked);
    node.insertBefore(made.node, rows[place]?.node ?? null);
    rows.splice(place < 0 ? rows.length : place, 0, made);
    return false;
  }

  function drop(id) {
    rows.find((row) => row.job().job_id === id)?.node.remove();
    rows = rows.filter((row) => row.job().job_id !== id);
  }

  const unfinished = () => rows.map((row) => row.job()).filter((job) => !hasEnded(job));
  return { node, put, drop, unfinished, size: () => rows.length };
}

/** How far a job is. */
function countsOf({ kind, counts: { total, done, added, refused, uncaptioned } }) {
  if (kind === "compact") return "merges the gallery's files";
  const words = [`${number(done)}${total === null ? "" : ` of ${number(total)}`} done`, `${number(added)} added`, `${number(refused)} refused`];
  if (uncaptioned) words.push(`${number(uncaptioned)} without a caption`);
  return words.join(", ");
}

/** One job of the list; `show` brings it up to date and leaves the focus where it is. */
function createRow(first, problem) {
  let job = first;
  const title = `${KINDS[job.kind] ?? job.kind} by ${job.by}, ${new Date(job.asked).toLocaleString("en-GB")}`;
  const state = make("strong");
  const counts = make("span");
  const detail = make("p", { class: "wrong" });
  const bar = make("progress", { "aria-label": `Progress of ${title}` });
  const left = make("ul", { class: "soft" });
  const summary = make("summary");
  const refused = make("details", {}, summary, make("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": `Refused of ${title}` }, left));
  const stop = button("Cancel", cancel, { "aria-label": `Cancel ${title}` });
  const node = make("li", { tabIndex: -1 }, make("h3", {}, title), make("p", {}, state, " ", counts), detail, bar, refused, stop);
  let isSure = false;
  refused.addEventListener("toggle", async () => {
    if (!refused.open) return;
    try {
      const whole = await api.job(job.job_id, 0); // the list has the first ten
      showRefused(left, whole.refused, whole.counts.refused);
    } catch (error) {
      showProblem(problem, error);
    }
  });

  async function cancel() {
    if (!isSure) {
      isSure = true;
      Object.assign(stop, { textContent: "Cancel: sure?", className: "bad", ariaLabel: `Cancel: sure? ${title}` });
      return;
    }
    try {
      show(await api.cancelJob(job.job_id));
      if (!stop.hidden) Object.assign(stop, { textContent: "Ends after its batch", className: "", ariaLabel: `Ends after its batch: ${title}` });
    } catch (error) {
      showProblem(problem, error);
    }
  }

  function show(news) {
    job = news;
    const isOver = hasEnded(job);
    const hadFocus = document.activeElement === stop;
    state.textContent = `${job.state}:`;
    state.className = job.state === "done" ? "good" : job.state === "failed" ? "wrong" : "";
    counts.textContent = `${countsOf(job)}${job.seconds === null ? "" : `, ${number(Math.ceil(job.seconds))} s`}`;
    detail.hidden = !job.detail;
    detail.textContent = job.detail ?? "";
    bar.hidden = isOver;
    if (job.counts.total) Object.assign(bar, { max: job.counts.total, value: job.counts.done });
    refused.hidden = !job.counts.refused;
    summary.textContent = `What was refused: ${number(job.counts.refused)}`;
    stop.hidden = isOver || (job.kind === "compact" && job.state === "running"); // which cannot be broken off
    if (hadFocus && stop.hidden) node.focus();
  }

  show(job);
  return { node, job: () => job, show };
}
