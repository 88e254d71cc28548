/** The filters: values with counts, ranges of numbers and times, of whatever columns the gallery has. */

import { facets } from "./api.js";
import { boundOf, filterable, kindOf, nameOf, typedValue, valueWords, writtenBound } from "./columns.js";
import { at, button, make, number } from "./dom.js";
import { clearProblem, showProblem } from "./problems.js";

const SHOWN = 8;
const MORE = 60;
const MOST_COLUMNS = 32; // that one request counts

/**
 * @param {{columns: {name: string, type: string}[], onChange: (where: Record<string, any>) => void}} options
 * @returns {{show: (where: Record<string, any>, how?: {anew?: boolean}) => Promise<void>, toggle: () => void}}
 */
export function createFilters({ columns, onChange }) {
  const place = at("filters");
  const opener = at("show-filters");
  const problem = make("div");
  const clear = button("Clear all filters", () => onChange({}), { class: "plain" });
  const usable = filterable(columns).slice(0, MOST_COLUMNS);
  let where = {};
  let asked = 0;
  let counted = ""; // for which filters the counts are that are shown
  let wide = false; // more values than a few are asked for

  const set = (column, wanted) => {
    const { [column.name]: _, ...others } = where;
    onChange(wanted === null ? others : { ...others, [column.name]: wanted });
  };
  const widen = () => {
    wide = true;
    show(where, { anew: true });
  };
  // A part stays when counts come, so that what is being typed is not lost.
  const parts = usable.map((column) => (["value", "id"].includes(kindOf(column)) ? valuesPart(column, set, widen) : rangePart(column, set)));
  place.replaceChildren(make("div", { class: "top" }, make("h2", {}, "Filters"), clear), problem, ...parts.map(({ node }) => node));
  if (!usable.length) place.append(make("p", { class: "soft" }, "This gallery has no columns to filter by."));

  async function counts() {
    const names = usable.filter((column) => kindOf(column) === "value").map(({ name }) => name);
    const free = names.filter((name) => !(name in where));
    const limit = wide ? MORE : SHOWN;
    // A column's own condition does not count: whoever has chosen camera 3 sees what camera 4 would give.
    const asks = names
      .filter((name) => name in where)
      .map((name) => {
        const { [name]: _, ...others } = where;
        return { columns: [name], where: others, limit };
      });
    if (free.length) asks.push({ columns: free, where, limit });
    return Object.assign({}, ...(await Promise.all(asks.map((ask) => facets(ask)))).map((answer) => answer.columns));
  }

  /** Counts are asked for where the filters changed; `anew`: the gallery did. */
  async function show(sought, { anew = false } = {}) {
    const isKnown = counted === JSON.stringify(sought);
    where = sought;
    const active = Object.keys(where).length;
    opener.textContent = active ? `Filters (${active})` : "Filters";
    clear.hidden = !active;
    if (place.hidden || (isKnown && !anew)) return;
    const mine = ++asked;
    try {
      const found = await counts();
      if (mine !== asked) return;
      clearProblem(problem);
      counted = JSON.stringify(where);
      usable.forEach((column, index) => parts[index].update(where[column.name], found[column.name]));
    } catch (error) {
      if (mine === asked) showProblem(problem, error, { again: () => show(where, { anew: true }) });
    }
  }

  function toggle() {
    place.hidden = !place.hidden;
    opener.setAttribute("aria-expanded", String(!place.hidden));
    if (!place.hidden) show(where);
  }

  opener.onclick = toggle;
  return { show, toggle };
}

/** Values to choose from, with their counts, and a field for one that is not shown. */
function valuesPart(column, set, widen) {
  const boxes = make("div");
  let chosen = [];
  const add = (event) => {
    const field = event.target;
    const value = typedValue(field.value, column);
    field.setAttribute("aria-invalid", String(field.value !== "" && value === undefined));
    if (field.value === "" || value === undefined) return;
    field.value = "";
    set(column, [...chosen.filter((other) => other !== value), value]);
  };
  const name = nameOf(column.name);
  const other = make("input", { id: `f-${column.name}`, placeholder: "another value", "aria-label": `${name}: another value`, onchange: add });
  const more = button("More …", widen, { class: "plain", "aria-label": `More … of ${name}` });
  const node = make("fieldset", { class: "facet" }, make("legend", {}, name), boxes, more, other);

  const box = ({ value, count }) => {
    const onchange = (event) => {
      const next = event.target.checked ? [...chosen, value] : chosen.filter((other) => other !== value);
      set(column, next.length ? next : null);
    };
    const input = make("input", { type: "checkbox", id: `f-${column.name}-${value}`, checked: chosen.includes(value), onchange });
    return make("label", {}, input, make("span", {}, valueWords(value, column)), make("span", { class: "count" }, count === null ? "" : number(count)));
  };

  /** @param {any} wanted @param {{values: {value: any, count: number}[], others: number} | undefined} found undefined: of an id */
  function update(wanted, found) {
    const isRange = wanted !== null && typeof wanted === "object" && !Array.isArray(wanted);
    chosen = wanted === undefined || isRange ? [] : [wanted].flat();
    const counted = (found?.values ?? []).filter(({ value }) => value !== null);
    if (!found?.others) counted.sort((a, b) => (a.value < b.value ? -1 : 1));
    const missing = chosen.filter((value) => !counted.some((entry) => entry.value === value)).map((value) => ({ value, count: null }));
    const focused = boxes.contains(document.activeElement) ? document.activeElement.id : null;
    boxes.replaceChildren(...[...missing, ...counted].map(box));
    if (focused) at(focused)?.focus();
    more.hidden = !found?.others || !counted.length || counted.length > SHOWN; // of very many values none is told
    other.hidden = found !== undefined && !found.others;
    node.hidden = found !== undefined && !counted.length && !missing.length && !found.others;
  }
  return { node, update };
}

/** From and to, of numbers or times. */
function rangePart(column, set) {
  const type = kindOf(column) === "number" ? "number" : "datetime-local";
  const change = () => {
    const bounds = Object.entries(fields).map(([end, field]) => [end, boundOf(field.value, column)]);
    const next = Object.fromEntries(bounds.filter(([, bound]) => bound !== null));
    set(column, Object.keys(next).length ? next : null);
  };
  const field = (end) => make("input", { type, step: type === "number" ? "any" : 1, id: `f-${column.name}-${end}`, onchange: change });
  const fields = { from: field("from"), to: field("to") };
  const labels = Object.entries(fields).map(([end, input]) => make("label", {}, type === "number" ? end : `${end} (UTC)`, input));
  const node = make("fieldset", { class: "facet" }, make("legend", {}, nameOf(column.name)), make("div", { class: "range" }, ...labels));
  function update(wanted) {
    for (const [end, input] of Object.entries(fields)) if (input !== document.activeElement) input.value = writtenBound(wanted?.[end], column);
  }
  return { node, update };
}
