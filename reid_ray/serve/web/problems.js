/** Shows why there is no answer, in words that say what to do next; counts down and asks again where the service says when. */

import { button, make } from "./dom.js";

const HEADS = {
  0: "No connection.",
  401: "Please log in.",
  403: "Your role does not allow this.",
  404: "Not there (any more).",
  408: "The upload took too long.",
  409: "Something changed meanwhile.",
  413: "Too large.",
  422: "This cannot be answered as asked.",
  429: "Too many requests from you.",
  502: "Something other than the service answered.",
  503: "The service is busy.",
  504: "No answer in time.",
};
const AGAIN = new Set([0, 408, 429, 500, 502, 503, 504]);
const MOST_AUTOMATIC = 5;

/**
 * @param {HTMLElement} place emptied and filled; empty it (or call this anew) and nothing is asked again
 * @param {any} problem @param {{again?: () => void, login?: () => void, purpose?: () => void, head?: string}} ways and what it begins with
 */
export function showProblem(place, problem, { again, login, purpose, head = HEADS[problem.status] ?? "The service failed." } = {}) {
  const tries = Number(place.dataset.tries ?? 0);
  const said = make("p", { role: "alert" }, make("strong", {}, `${head} `), problem.message);
  const panel = make("div", { class: "problem" }, said);
  if (problem.requestId && problem.status >= 500) panel.append(make("span", { class: "soft" }, `request ${problem.requestId}`));
  place.replaceChildren(panel);
  if (!("status" in problem)) console.error(problem); // a fault of the page itself
  if (problem.status === 401 && login) panel.append(button("Log in", login, { class: "first" }));
  if (problem.status === 422 && /Reid-Purpose/.test(problem.message) && purpose) panel.append(button("State it", purpose, { class: "first" }));
  if (!again || !AGAIN.has(problem.status)) return;
  const retry = () => {
    if (panel.isConnected) again();
  };
  panel.append(button("Try again", retry, { class: "first" }));
  if (problem.status === 0) addEventListener("online", retry, { once: true });
  if (problem.retryAfterS === null || tries >= MOST_AUTOMATIC) return;
  place.dataset.tries = String(tries + 1);
  countDown(panel, Math.max(1, Math.ceil(problem.retryAfterS)), retry);
}

/** The place says nothing is wrong. */
export function clearProblem(place) {
  place.replaceChildren();
  delete place.dataset.tries;
}

function countDown(panel, seconds, then) {
  const words = make("span", { class: "soft", "aria-hidden": "true" });
  panel.append(words);
  const until = Date.now() + seconds * 1000;
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    words.textContent = `again in ${left} s`;
    if (!panel.isConnected || left <= 0) {
      clearInterval(timer);
      then();
    }
  };
  const timer = setInterval(tick, 250);
  tick();
}
