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
 * @returns {{show: (where: Record<string, any>) => Promise<void>, toggle: () => void}}
 */
export function createFilters({ columns, onChange }) {
  const place = at("filters");
  const opener = at("show-filters");
  const problem = make("div");
  const list = make("div");
  const clear = button("Clear all filters", () => onChange({}), { class: "plain" });
  place.replaceChildren(make("div", { class: "top" }, make("h2", {}, "Filters"), clear), problem, list);
  const usable = filterable(columns).slice(0, MOST_COLUMNS);
  const wide = new Set(); // columns of which more values are shown
  let where = {};
  let asked = 0;

  const set = (column, wanted) => {
    const { [column.name]: _, ...others } = where;
    onChange(wanted === null ? others : { ...others, [column.name]: wanted });
  };

  async function counts(signalOf) {
    const free = usable.filter((column) => kindOf(column) === "value" && !(column.name in where)).map((column) => column.name);
    const own = usable.filter((column) => kindOf(column) === "value" && column.name in where);
    const limit = Math.max(SHOWN, wide.size ? MORE : 0);
    // A column's own condition does not count: whoever has chosen camera 3 sees what camera 4 would give.
    const asks = own.map(({ name }) => {
      const { [name]: _, ...others } = where;
      return { columns: [name], where: others, limit };
    });
    if (free.length) asks.push({ columns: free, where, limit });
    const answers = await Promise.all(asks.map((ask) => facets(ask, signalOf)));
    return Object.assign({}, ...answers.map((answer) => answer.columns));
  }

  async function show(sought) {
    where = sought;
    const active = Object.keys(where).length;
    opener.textContent = active ? `Filters (${active})` : "Filters";
    clear.hidden = !active;
    if (place.hidden) return;
    const mine = ++asked;
    try {
      const found = await counts();
      if (mine !== asked) return;
      clearProblem(problem);
      const focused = document.activeElement?.id;
      list.replaceChildren(...usable.map((column) => (["value", "id"].includes(kindOf(column)) ? values(column, found[column.name]) : range(column))).filter(Boolean));
      if (!list.childElementCount) list.append(make("p", { class: "soft" }, "This gallery has no columns to filter by."));
      if (focused && !document.activeElement?.id) at(focused)?.focus();
    } catch (error) {
      if (mine === asked) showProblem(problem, error, { again: () => show(where) });
    }
  }

  function values(column, found) {
    const wanted = where[column.name];
    const isRange = wanted !== undefined && typeof wanted === "object" && !Array.isArray(wanted);
    const chosen = wanted === undefined || isRange ? [] : [wanted].flat();
    const isId = kindOf(column) === "id";
    const counted = isId ? [] : found.values;
    const rest = isId ? Infinity : found.others;
    const missing = chosen.filter((value) => !counted.some((entry) => entry.value === value)).map((value) => ({ value, count: null }));
    if (!isId && !counted.length && !missing.length) return null;
    if (!rest && counted.length <= SHOWN) counted.sort((a, b) => (a.value < b.value ? -1 : 1));
    const shown = [...missing, ...(wide.has(column.name) ? counted : counted.slice(0, SHOWN))];
    const boxes = shown.map(({ value, count }) => {
      const onchange = (event) => {
        const next = event.target.checked ? [...chosen, value] : chosen.filter((other) => other !== value);
        set(column, next.length ? next : null);
      };
      const box = make("input", { type: "checkbox", id: `f-${column.name}-${value}`, checked: chosen.includes(value), onchange });
      return make("label", {}, box, make("span", {}, valueWords(value, column)), make("span", { class: "count" }, count === null ? "" : number(count)));
    });
    const parts = [make("legend", {}, nameOf(column.name)), ...boxes];
    if (rest || counted.length > SHOWN) {
      if (!isId && !wide.has(column.name)) parts.push(button("More …", () => (wide.add(column.name), show(where)), { class: "plain", "aria-label": `More … of ${nameOf(column.name)}` }));
      const add = (event) => {
        const value = typedValue(event.target.value, column);
        if (event.target.value && value !== undefined) set(column, [...chosen, value]);
        event.target.setAttribute("aria-invalid", String(value === undefined));
      };
      parts.push(make("input", { id: `f-${column.name}`, placeholder: "another value", "aria-label": `${nameOf(column.name)}: another value`, onchange: add }));
    }
    return make("fieldset", { class: "facet" }, ...parts);
  }

  function range(column) {
    const wanted = where[column.name] ?? {};
    const type = kindOf(column) === "number" ? "number" : "datetime-local";
    const fields = { from: null, to: null };
    const change = () => {
      const next = {};
      for (const [end, field] of Object.entries(fields)) {
        const bound = boundOf(field.value, column);
        if (bound !== null) next[end] = bound;
      }
      set(column, Object.keys(next).length ? next : null);
    };
    for (const end of Object.keys(fields)) {
      fields[end] = make("input", { type, step: type === "number" ? "any" : 1, id: `f-${column.name}-${end}`, value: writtenBound(wanted[end], column), onchange: change });
    }
    return make(
      "fieldset",
      { class: "facet" },
      make("legend", {}, nameOf(column.name)),
      make("div", { class: "range" }, make("label", {}, "from", fields.from), make("label", {}, "to", fields.to)),
    );
  }

  function toggle() {
    place.hidden = !place.hidden;
    opener.setAttribute("aria-expanded", String(!place.hidden));
    if (!place.hidden) show(where);
  }

  opener.onclick = toggle;
  return { show, toggle };
}
