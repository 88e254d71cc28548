/** One picture enlarged: all that is known of it, its caption, others of the same person or track, and why it is a hit. */

import * as api from "./api.js";
import { cluesOf } from "./address.js";
import { isTime, nameOf, valueWords } from "./columns.js";
import { at, button, make, openDialog, picture } from "./dom.js";
import { heatMap, heatWords, weighedWords } from "./explanation.js";
import { showProblem } from "./problems.js";

const TRACK = 40;

/**
 * @param {{columns: {name: string, type: string}[], selection: any, neighbours: () => any[], onMore: (hit: any) => void, onNot: (hit: any) => void,
 *   onBrowse: (where: any) => void}} options
 */
export function createDetails({ columns, selection, neighbours, onMore, onNot, onBrowse }) {
  const dialog = at("details");
  let shown = null;
  let sought = null;

  /** Opens a hit. @param {any} hit @param {import("./address.js").Sought} of what was searched for */
  function open(hit, of) {
    shown = hit;
    sought = of;
    const figure = make("figure", { class: "picture" }, picture(hit.thumbnail || api.thumbnailOf(hit.item_id), hit.item.caption || `picture of item ${hit.item_id}`));
    const reason = make("div");
    const told = make("div", { class: "told" }, verbs(hit), facts(hit), reason);
    if (sought.clues.length) reason.append(button("Why is this a hit?", () => explain(hit, figure, reason)));
    const tracks = ["track", "track_id", "person_id"].filter((name) => hit.item[name] !== null && hit.item[name] !== undefined).map((name) => others(hit, name));
    openDialog(dialog, hit.rank ? `Hit ${hit.rank}` : "Picture", make("div", { class: "two" }, figure, told), ...tracks);
    dialog.scrollTop = 0;
  }

  function verbs(hit) {
    const then = (act) => () => {
      dialog.close();
      act(hit);
    };
    const box = make("input", { type: "checkbox", checked: selection.has(hit.item_id), onchange: () => selection.toggle(hit) });
    const step = (by, words) => button(words, () => move(by), { disabled: !beside(by), class: "plain" });
    return make(
      "div",
      { class: "row" },
      button("More like this", then(onMore)),
      sought.clues.length > 0 && button("Not this", then(onNot)),
      make("label", {}, box, "Selected"),
      step(-1, "Previous"),
      step(1, "Next"),
    );
  }

  function facts(hit) {
    const rows = [];
    const add = (name, value) => rows.push(make("dt", {}, name), make("dd", {}, value));
    add("item", hit.item_id);
    if (typeof hit.score === "number") add("score", hit.score.toFixed(4));
    for (const [name, value] of Object.entries(hit.item)) {
      if (["item_id", "caption"].includes(name) || value === null || value === undefined) continue;
      add(nameOf(name), typeof value === "object" ? JSON.stringify(value) : valueWords(value, columns.find((column) => column.name === name)));
    }
    add("generation", hit.generation);
    return make("div", {}, hit.item.caption && make("blockquote", {}, hit.item.caption), make("dl", {}, ...rows));
  }

  /** The other pictures of a person or track, in the order of time where it is known. */
  function others(hit, name) {
    const where = { [name]: hit.item[name] };
    const strip = make("ul", { class: "track" }, make("li", { class: "soft" }, "…"));
    const title = `${nameOf(name)} ${hit.item[name]}`;
    const time = columns.find(isTime);
    const load = async () => {
      try {
        const { items } = await api.browse({ k: TRACK, where });
        if (time) items.sort((a, b) => String(a.item[time.name]).localeCompare(String(b.item[time.name])));
        strip.replaceChildren(
          ...items.map((item) => {
            const camera = item.item.camera ?? item.item.camera_id ?? null;
            const words = [camera !== null && `camera ${camera}`, time && item.item[time.name] && valueWords(item.item[time.name], time)];
            const label = words.filter(Boolean).join(", ") || item.item_id;
            const here = item.item_id === hit.item_id;
            const one = button("", () => open(item, sought), { "aria-label": `${title}, ${label}`, "aria-current": here ? "true" : null, disabled: here });
            one.append(picture(item.thumbnail, ""), make("span", {}, label));
            return make("li", {}, one);
          }),
        );
      } catch (error) {
        const place = make("li");
        strip.replaceChildren(place);
        showProblem(place, error, { again: load });
      }
    };
    load();
    const all = button("All of them", () => (dialog.close(), onBrowse(where)), { class: "plain", "aria-label": `All of them: ${title}` });
    return make("section", { "aria-label": title }, make("div", { class: "top" }, make("h3", {}, `Pictures of ${title}`), all), strip);
  }

  async function explain(hit, figure, place) {
    place.replaceChildren(make("p", { class: "soft", role: "status" }, "Looking for the reason …"));
    try {
      const { score, words, words_left_out: left, patches } = await api.explain({ ...(await cluesOf(sought)), item_id: hit.item_id });
      if (shown !== hit) return;
      const parts = [make("h3", {}, "What the score would lose without each part")];
      for (const clue of new Set(words.map((word) => word.clue))) parts.push(weighedWords(words.filter((word) => word.clue === clue)));
      if (left) parts.push(make("p", { class: "soft" }, `${left} more words are left out.`));
      if (patches) {
        const map = heatMap(patches);
        figure.append(map);
        const box = make("input", { type: "checkbox", checked: true, onchange: () => (map.hidden = !box.checked) });
        parts.push(make("label", {}, box, "Heat map over the picture"), make("p", { class: "soft" }, `${heatWords(patches)}. Orange: the score needs it; blue: better without.`));
      }
      parts.push(make("p", { class: "soft" }, `Score ${score.toFixed(4)}. An explanation says what the model looked at, not whether it is right.`));
      place.replaceChildren(...parts);
    } catch (error) {
      showProblem(place, error, { again: () => explain(hit, figure, place) });
    }
  }

  function beside(by) {
    const hits = neighbours();
    const here = hits.findIndex((hit) => hit.item_id === shown?.item_id);
    return here < 0 ? undefined : hits[here + by];
  }

  function move(by) {
    const next = beside(by);
    if (next) open(next, sought);
  }

  dialog.addEventListener("keydown", (event) => {
    if (event.target instanceof HTMLInputElement || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      event.preventDefault();
      move(event.key === "ArrowRight" ? 1 : -1);
    }
  });
  return { open };
}
