/** The page: one search at a time, held in the address; the parts say what is to change, and this file asks and shows. */

import { addressOf, NOTHING, questionOf, soughtIn, wordsOf } from "./address.js";
import * as api from "./api.js";
import { groupable, nameOf } from "./columns.js";
import { createDetails } from "./details.js";
import { at, make, number, plural } from "./dom.js";
import { createFilters } from "./filters.js";
import { createPast, remember } from "./past.js";
import { clearProblem, showProblem } from "./problems.js";
import { createQuery } from "./query.js";
import { createResults } from "./results.js";
import { createSelection } from "./selection.js";
import { applyPurpose, applyScheme, askLogin, createSettings } from "./session.js";

const PAGE_SIZES = [24, 48, 96, 200];
/** Whoever the service says nothing of. */
const LEAST = { name: "unknown", role: "search", login: false };
/** Searches of this visit, whole, by the name in the history's entry: there a picture is found again. */
const visited = new Map();

let sought = NOTHING;
let cursor = null;
let running = new AbortController();
/** The page's parts, once the service has said what it has. @type {Record<string, any>} */
let parts = {};

async function start() {
  at("status").textContent = "Loading …";
  try {
    const facts = await api.info();
    clearProblem(at("problem"));
    await build(facts);
    window.onpopstate = (event) => open(visited.get(event.state?.visit) ?? read());
    open(read());
  } catch (error) {
    at("status").textContent = "";
    showProblem(at("problem"), error, { again: start, login: () => askLogin(start) });
    if (error.status === 401) askLogin(start);
  }
}

function read() {
  const { sought: found, unread } = soughtIn(location.search);
  if (unread.length) showProblem(at("problem"), new api.Problem(422, `The address has parts that cannot be read, and they are left out: ${unread.join(", ")}`));
  return found;
}

async function build({ columns, limits, me = LEAST, drawn_people_only: drawn = false }) {
  const mayWrite = me.role !== "search";
  const admin = mayWrite ? (await import("./admin.js")).createAdmin({ columns, role: me.role, filter: () => sought.where, selected: () => parts.selection.ids(), onChange: changed }) : null;
  const selection = createSelection({ onChange: () => parts.results?.mark(), onMore: (hits) => addItems(hits, 1), onDelete: admin && (() => admin.open("remove")) });
  const onMore = (hit) => addItems([hit], 1);
  const onNot = (hit) => addItems([hit], -0.5);
  const details = createDetails({ columns, selection, neighbours: () => parts.results.hits, onMore, onNot, onBrowse: (where) => go({ ...NOTHING, where, k: sought.k }) });
  const results = createResults({ columns, selection, onOpen: (hit) => details.open(hit, sought), onMore, onNot });
  const filters = createFilters({ columns, onChange: (where) => go({ where }) });
  const query = createQuery({ onClues: (clues) => go({ clues, ...(clues.length ? {} : { without: [] }) }), onPut: (without) => go({ without }) });
  parts = { selection, results, filters, query, details };
  createPast({ onGo: (address) => go(soughtIn(address.slice(2)).sought) });
  createSettings({ me, onOut: () => location.reload() });
  at("hint").hidden = !drawn;
  at("show-admin").hidden = !mayWrite;
  at("show-admin").onclick = () => admin.open();
  at("select-all").onclick = () => selection.add(results.hits);
  at("skip").onclick = (event) => (event.preventDefault(), results.focus(0));
  at("home").onclick = (event) => (event.preventDefault(), go(NOTHING));
  at("more").onclick = () => run({ append: true });
  fillOptions(columns, limits);
  if (matchMedia("(min-width: 1000px)").matches && at("filters").hidden) filters.toggle();
}

function fillOptions(columns, limits) {
  const sizes = PAGE_SIZES.filter((size) => size <= (limits.max_k ?? Infinity));
  at("k").replaceChildren(...(sizes.length ? sizes : [limits.max_k]).map((size) => new Option(`${size} a page`, String(size))));
  at("one-per").replaceChildren(new Option("every picture", ""), ...groupable(columns).map(({ name }) => new Option(`one per ${nameOf(name)}`, name)));
  at("k").onchange = () => go({ k: Number(at("k").value) });
  at("one-per").onchange = () => go({ onePer: at("one-per").value });
}

/** Items become clues; what is like them is searched for together with what was searched for before. */
function addItems(hits, weight) {
  const ids = hits.map((hit) => hit.item_id);
  const others = parts.query.clues().filter((clue) => clue.kind !== "item" || !ids.includes(clue.id));
  go({ clues: [...others, ...ids.map((id) => ({ kind: "item", id, weight }))] });
  scrollTo(0, 0);
}

/** Another search: into the address, then asked. What stands in the field counts, whether it was sent or not. */
function go(change) {
  const next = { ...sought, clues: parts.query.clues(), ...change };
  const visit = `${performance.timeOrigin} ${visited.size}`; // a reload begins anew, and the history keeps its entries
  visited.set(visit, next);
  history.pushState({ visit }, "", addressOf(next));
  remember(addressOf(next), wordsOf(next));
  open(next);
}

/** Shows a search whose address is there already. */
function open(next) {
  sought = next;
  const words = wordsOf(sought);
  document.title = words ? `${words.slice(0, 80)} · Person search` : "Person search";
  at("k").value = String(sought.k ?? at("k").options[0].value);
  at("one-per").value = sought.onePer;
  parts.query.show(sought);
  parts.filters.show(sought.where);
  run({});
}

/** After the gallery changed; some items may be gone. */
function changed(gone = []) {
  parts.selection.drop(gone);
  parts.filters.show(sought.where, { anew: true });
  run({});
}

async function run({ append = false }) {
  running.abort();
  const mine = (running = new AbortController());
  const isSearch = sought.clues.length > 0;
  const k = Number(at("k").value);
  at("one-per").disabled = !isSearch;
  const place = at(append ? "problem-below" : "problem");
  for (const id of ["problem", "problem-below"]) at(id).replaceChildren();
  parts.results.busy(true);
  at("status").textContent = isSearch ? "Searching …" : "Loading …";
  const started = performance.now();
  try {
    const from = append ? cursor : null;
    const { signal } = mine;
    const answer = isSearch ? await api.search(await questionOf(sought, k, from), signal) : await api.browse({ k, where: sought.where, ...(from ? { cursor: from } : {}) }, signal);
    if (mine !== running) return;
    clearProblem(place);
    show(answer, { isSearch, append, ms: performance.now() - started });
  } catch (error) {
    if (error.name === "AbortError" || mine !== running) return;
    at("status").textContent = append ? "" : "No results.";
    if (!append) parts.results.show([], { refusable: false });
    at("more").hidden = !append;
    showProblem(place, error, { again: () => run({ append }), login: () => askLogin(() => run({ append })), purpose: () => at("show-settings").click() });
  } finally {
    if (mine === running) parts.results.busy(false);
  }
}

function show(answer, { isSearch, append, ms }) {
  const before = append ? parts.results.hits.length : 0;
  const found = isSearch ? answer.hits.map((hit) => ({ ...hit, rank: before + hit.rank })) : answer.items;
  parts.results.show(found, { refusable: isSearch, append });
  cursor = answer.cursor;
  at("select-all").hidden = !parts.results.hits.length;
  at("more").hidden = !cursor;
  const filtered = Object.keys(sought.where).length > 0;
  const all = parts.results.hits.length;
  const words = [];
  if (!all) words.push(answer.gallery ? "No picture passes." : "The gallery is empty.");
  else if (isSearch) words.push(`${plural(all, "hit")} among ${plural(answer.gallery, "picture")}, in ${Math.round(ms)} ms.`);
  else words.push(`The newest of ${plural(answer.gallery, "picture")}${filtered ? ", filtered" : ""}: ${number(all)} shown.`);
  if (!all && filtered) words.push("Take a filter away to see more.");
  if (answer.truncated) words.push("The description is too long: its end was not read.");
  at("status").replaceChildren(words.join(" "));
  if (answer.missing_shares?.length) at("status").append(make("strong", { class: "wrong" }, " A part of the gallery is lost for now and was not searched."));
  if (append && all > before) parts.results.focus(before);
}

applyScheme();
applyPurpose();
start();
