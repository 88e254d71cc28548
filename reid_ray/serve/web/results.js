/** The pictures found: a grid of cards that the arrow keys walk through, and what can be done with each. */

import { thumbnailOf } from "./api.js";
import { summary } from "./columns.js";
import { at, button, make, picture } from "./dom.js";

/**
 * @typedef {{item_id: string, generation: number, item: Record<string, any>, thumbnail: string, rank?: number, score?: number}} Hit
 * @param {{columns: {name: string, type: string}[], selection: any, onOpen: (hit: Hit) => void, onMore: (hit: Hit) => void, onNot: (hit: Hit) => void}} options
 */
export function createResults({ columns, selection, onOpen, onMore, onNot }) {
  const grid = at("grid");
  /** @type {Hit[]} */
  let hits = [];
  let active = 0;
  let canRefuse = false; // "not this" needs a search to refuse it for

  function card(hit, index) {
    const words = summary(hit.item, columns) || hit.item_id;
    const caption = typeof hit.item.caption === "string" ? hit.item.caption : "";
    const rank = hit.rank ? `rank ${hit.rank}, ` : "";
    const look = button("", () => onOpen(hit), { class: "look", "aria-label": `${rank}${words}${caption ? `: ${caption}` : ""}, open`, title: hit.item_id });
    look.append(picture(hit.thumbnail || thumbnailOf(hit.item_id), "", { loading: index < 24 ? "eager" : "lazy" }));
    const box = make("input", { type: "checkbox", "aria-label": `Select ${words}`, checked: selection.has(hit.item_id), onchange: () => selection.toggle(hit) });
    const verbs = make("div", { class: "verbs" }, button("More like this", () => onMore(hit), { class: "plain", "aria-label": `More like this: ${words}` }));
    if (canRefuse) verbs.append(button("Not this", () => onNot(hit), { class: "plain", "aria-label": `Not this: ${words}` }));
    const score = typeof hit.score === "number" && make("span", { class: "score", title: "cosine similarity" }, hit.score.toFixed(3));
    const facts = make("div", { class: "facts" }, make("p", {}, words), caption && make("p", { class: "words", title: caption }, caption));
    const node = make("li", { class: "card", "data-id": hit.item_id }, look, score, make("label", { class: "pick" }, box), facts, verbs);
    node.classList.toggle("chosen", selection.has(hit.item_id));
    node.addEventListener("focusin", () => activate(index));
    reachable(node, index === active);
    return node;
  }

  /** Tab reaches the controls of one card, the one that the arrow keys are on. */
  function reachable(node, yes) {
    for (const control of node.querySelectorAll("button, input")) control.tabIndex = yes ? 0 : -1;
  }

  function activate(index) {
    if (index === active) return;
    if (grid.children[active]) reachable(grid.children[active], false);
    active = index;
    reachable(grid.children[index], true);
  }

  function focus(index) {
    const node = grid.children[Math.max(0, Math.min(index, hits.length - 1))];
    node?.querySelector(".look").focus();
  }

  const across = () => getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const steps = { ArrowRight: () => active + 1, ArrowLeft: () => active - 1, ArrowDown: () => active + across(), ArrowUp: () => active - across(), Home: () => 0, End: () => hits.length - 1 };
  const verbs = { s: (hit) => selection.toggle(hit), m: onMore, n: (hit) => canRefuse && onNot(hit) };

  grid.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !hits.length) return;
    const next = steps[event.key]?.();
    if (next !== undefined) {
      event.preventDefault();
      if (next >= hits.length && event.key === "ArrowDown" && !at("more").hidden) at("more").focus();
      else if (next < 0 && event.key === "ArrowUp") at("text").focus();
      else focus(next);
    } else if (verbs[event.key] && event.target.classList.contains("look")) {
      event.preventDefault();
      verbs[event.key](hits[active]);
    }
  });
  at("text").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" && hits.length) {
      event.preventDefault();
      focus(active);
    }
  });
  at("more").addEventListener("keydown", (event) => event.key === "ArrowUp" && focus(hits.length - 1));

  return {
    get hits() {
      return hits;
    },
    focus,
    /** New hits in place of those there were, or after them. */
    show(found, { refusable, append = false }) {
      canRefuse = refusable;
      const before = append ? hits.length : 0;
      if (!append) active = 0;
      hits = append ? [...hits, ...found] : found;
      const cards = found.map((hit, index) => card(hit, before + index));
      const hadFocus = !append && grid.contains(document.activeElement);
      if (append) grid.append(...cards);
      else grid.replaceChildren(...cards);
      if (hadFocus) cards.length ? focus(0) : at("text").focus();
    },
    busy: (yes) => grid.setAttribute("aria-busy", String(yes)),
    /** The marks of what is selected, after the selection changed. */
    mark() {
      for (const node of grid.children) {
        const chosen = selection.has(node.dataset.id);
        node.classList.toggle("chosen", chosen);
        node.querySelector(".pick input").checked = chosen;
      }
    },
  };
}
