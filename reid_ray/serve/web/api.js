/** The service's API: paths, statuses and what went wrong. Knows nothing of the page. Paths are relative, so the service may lie below a prefix. */

/** Why there is no answer. `status` is 0 where none arrived. */
export class Problem extends Error {
  constructor(status, detail, { retryAfterS = null, requestId = null } = {}) {
    super(detail);
    Object.assign(this, { status, retryAfterS, requestId });
  }
}

const PAUSE_MS = 300; // before a connection that broke is asked for again

let purpose = "";

/** What the searches from here on are for, in the user's words; the service writes it into its audit log. */
export function statePurpose(words) {
  purpose = words.trim();
}

/**
 * @param {string} path
 * @param {{method?: string, body?: any, signal?: AbortSignal, again?: boolean}} options and whether it may be asked again, once, where the connection broke:
 *   another replica answers at once, or the service comes back. What changes nothing may.
 * @returns {Promise<any>}
 */
export async function call(path, { method = "GET", body, signal, again = method === "GET" } = {}) {
  /** @type {Record<string, string>} */
  const headers = {};
  if (purpose) headers["Reid-Purpose"] = encodeURIComponent(purpose);
  const isForm = body instanceof FormData;
  if (body !== undefined && !isForm) headers["Content-Type"] = "application/json";
  const sent = { method, headers, body: body === undefined || isForm ? body : JSON.stringify(body), signal };
  let reply, text;
  try {
    [reply, text] = await whole(path, sent, again);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The service does not answer. Is this computer offline, or has the service stopped?");
  }
  const answer = parsed(text);
  if (reply.ok && answer !== undefined) return answer;
  const said = typeof answer?.detail === "string" ? answer.detail : `${reply.status} ${reply.statusText}`;
  const wait = Number(reply.headers.get("Retry-After") ?? NaN);
  throw new Problem(reply.ok ? 502 : reply.status, said, { retryAfterS: Number.isFinite(wait) ? wait : null, requestId: reply.headers.get("X-Request-Id") });
}

/** @returns {Promise<[Response, string]>} a reply and all of its text */
async function whole(path, sent, again) {
  try {
    const reply = await fetch(new URL(path, document.baseURI), { ...sent, cache: "no-store" });
    return [reply, await reply.text()];
  } catch (error) {
    if (!again || error.name === "AbortError") throw error;
    await new Promise((go) => setTimeout(go, PAUSE_MS));
    sent.signal?.throwIfAborted();
    return whole(path, sent, false);
  }
}

function parsed(text) {
  if (!text) return null;
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // whatever stands before the service answered in its place
  }
}

const post = (path) => (body, signal) => call(path, { method: "POST", body, signal });
const question = (path) => (body, signal) => call(path, { method: "POST", body, signal, again: true });
const item = (id) => encodeURIComponent(id);

export const info = () => call("v1/info");
export const login = post("v1/login");
export const logout = () => call("v1/logout", { method: "POST", body: {} });
export const search = question("v1/search");
export const browse = question("v1/browse");
export const facets = question("v1/facets");
export const explain = question("v1/explain");
export const thumbnailOf = (id) => `v1/thumbnails?id=${item(id)}`;

export const addJob = (form, signal) => call("v1/jobs", { method: "POST", body: form, signal });
/** @param {{limit?: number, before?: string, of?: "all" | "unfinished"}} which */
export const jobs = (which, signal) => call(`v1/jobs?${new URLSearchParams(/** @type {any} */ (which))}`, { signal });
export const job = (id, waitS, signal) => call(`v1/jobs/${item(id)}?wait=${waitS}`, { signal });
export const cancelJob = (id) => call(`v1/jobs/${item(id)}`, { method: "DELETE" });
export const deleteItems = post("v1/items/delete");
export const eraseItems = post("v1/items/erase");
export const erasures = () => call("v1/erasures");
export const erasure = (request) => call(`v1/erasures/${item(request)}`);
export const generations = () => call("v1/generations");
export const makeSnapshot = (name) => call("v1/snapshots", { method: "POST", body: { name } });
export const restoreSnapshot = (name) => call(`v1/snapshots/${item(name)}/restore`, { method: "POST" });
export const dropSnapshot = (name) => call(`v1/snapshots/${item(name)}`, { method: "DELETE" });
export const compact = () => call("v1/compact", { method: "POST" });
export const audit = (before) => call(`v1/audit?limit=50${before === undefined ? "" : `&before=${before}`}`);
export const verifyAudit = () => call("v1/audit/verify");
