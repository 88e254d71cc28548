/** Deleting and erasing: of the selection or of all that pass the filters, after the number of pictures is typed. */

import * as api from "./api.js";
import { wordsOf, NOTHING } from "./address.js";
import { make, number, plural } from "./dom.js";
import { showProblem } from "./problems.js";

export function createRemoving({ role, filter, selected, onChange }) {
  return async function show(place) {
    const ids = selected();
    const where = filter();
    const problem = make("div");
    place.replaceChildren(make("p", { class: "soft" }, "Counting …"));
    try {
      const passing = Object.keys(where).length ? await countOf(where) : 0;
      place.replaceChildren(...scopes({ ids, where, passing }), problem);
    } catch (error) {
      showProblem(place, error, { again: () => show(place) });
    }

    function scopes({ ids, where, passing }) {
      const offers = [];
      if (ids.length) offers.push({ words: `the selection: ${plural(ids.length, "picture")}`, count: ids.length, what: { item_ids: ids } });
      if (passing) offers.push({ words: `all that pass the filters (${wordsOf({ ...NOTHING, where })}): ${plural(passing, "picture")}`, count: passing, what: { where } });
      if (!offers.length) return [make("p", {}, "Select pictures, or set filters, and come back: that says which ones.")];
      let offer = offers[0];
      const typed = make("input", { type: "text", inputMode: "numeric", id: "remove-count", autocomplete: "off" });
      const request = make("input", { type: "text", id: "remove-request", pattern: "[A-Za-z0-9][A-Za-z0-9_\\-]{0,99}", title: "letters, digits, - and _" });
      const now = make("input", { type: "checkbox", id: "remove-now" });
      const ask = make("span");
      const [drop, erase] = ["Delete", "Erase for good"].map((words) => make("button", { class: "bad", value: words }, words));
      const check = () => {
        const sure = typed.value.trim() === String(offer.count);
        drop.disabled = !sure;
        erase.disabled = !sure || !request.value || !request.validity.valid;
        ask.textContent = `To confirm, type the number of pictures: ${offer.count}`;
      };
      typed.oninput = request.oninput = check;
      const radios = offers.map((one, index) => {
        const onchange = () => {
          offer = one;
          check();
        };
        return make("label", {}, make("input", { type: "radio", name: "scope", checked: index === 0, onchange }), one.words);
      });
      const onsubmit = async (event) => {
        event.preventDefault();
        const isErasing = event.submitter === erase;
        drop.disabled = erase.disabled = true;
        const expect = offer.count;
        try {
          const done = isErasing ? await api.eraseItems({ ...offer.what, request: request.value.trim(), now: now.checked, expect }) : await api.deleteItems({ ...offer.what, expect });
          const words = isErasing
            ? `${plural(done.items, "picture")} of request ${done.request}: ${done.done ? "erased; the receipt is below, under erasures" : `gone from every search, erased from all files by ${done.deadline}`}.`
            : `${plural(done.deleted, "picture")} deleted in generation ${number(done.generation)}.`;
          place.replaceChildren(make("p", { role: "status", class: "good" }, words));
          onChange(offer.what.item_ids ?? []);
        } catch (error) {
          showProblem(problem, error);
          check();
        }
      };
      const more = [
        make("p", { class: "soft" }, "Deleted pictures are found no more, and stay in snapshots. An erasure removes a person from every file, snapshots too, and gives a receipt."),
        make("label", { class: "wide" }, "Reference of the erasure request (letters, digits, - and _)", request),
        make("label", {}, now, "Erase at once rather than with the next compaction"),
      ];
      check();
      return [
        make(
          "form",
          { class: "stack", onsubmit },
          make("fieldset", { class: "stack" }, make("legend", {}, "Which pictures"), ...radios),
          ...(role === "admin" ? more : []),
          make("label", { class: "wide" }, ask, typed),
          make("div", { class: "row" }, drop, role === "admin" && erase),
        ),
      ];
    }
  };
}

/** How many pictures pass a filter: every item was added at some time. */
async function countOf(where) {
  const { columns } = await api.facets({ columns: ["added_s"], where, limit: 1 });
  const { values, others } = columns.added_s;
  return values.reduce((sum, { count }) => sum + count, others);
}
