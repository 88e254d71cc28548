/** What the user has selected, over searches; and its export as JSON, CSV or a zip with the pictures. */

import { thumbnailOf } from "./api.js";
import { at, button, download, make, plural } from "./dom.js";
import { zipOf } from "./zip.js";

/**
 * @param {{onChange: () => void, onMore: (hits: any[]) => void, onDelete: ((ids: string[]) => void) | null}} options
 */
export function createSelection({ onChange, onMore, onDelete }) {
  /** @type {Map<string, any>} */
  const chosen = new Map();
  const place = at("chosen");

  function changed() {
    place.hidden = chosen.size === 0;
    const hits = [...chosen.values()];
    const said = make("p", { role: "alert", class: "wrong" });
    const export_ = async (write) => {
      said.textContent = "";
      try {
        await write(hits);
      } catch (error) {
        said.textContent = `The export failed: ${error.message}`;
      }
    };
    const parts = [
      make("strong", { role: "status" }, `${plural(chosen.size, "picture")} selected`),
      button("More like these", () => onMore(hits)),
      button("JSON", () => export_(asJson), { "aria-label": "Export as JSON" }),
      button("CSV", () => export_(asCsv), { "aria-label": "Export as CSV" }),
      button("Zip", () => export_(asZip), { "aria-label": "Export as zip with the pictures", title: "with the pictures" }),
      onDelete && button("Delete …", () => onDelete([...chosen.keys()])),
      button("Clear", api.clear),
    ];
    place.replaceChildren(make("div", { class: "row" }, ...parts.filter(Boolean)), said);
    onChange();
  }

  const api = {
    has: (id) => chosen.has(id),
    ids: () => [...chosen.keys()],
    drop(ids) {
      for (const id of ids) chosen.delete(id);
      changed();
    },
    toggle(hit) {
      if (!chosen.delete(hit.item_id)) chosen.set(hit.item_id, hit);
      changed();
    },
    add(hits) {
      for (const hit of hits) chosen.set(hit.item_id, hit);
      changed();
    },
    clear() {
      chosen.clear();
      changed();
    },
  };
  return api;
}

const row = (hit) => ({ item_id: hit.item_id, score: hit.score ?? null, rank: hit.rank ?? null, generation: hit.generation, ...hit.item });
const blob = (text, type) => new Blob([text], { type });
const jsonOf = (hits) => `${JSON.stringify(hits.map(row), null, 1)}\n`;
const asJson = (hits) => download("selection.json", blob(jsonOf(hits), "application/json"));
const asCsv = (hits) => download("selection.csv", blob(csvOf(hits), "text/csv"));

/** CSV (RFC 4180). A text that a spreadsheet would take for a formula gets an apostrophe before it. */
export function csvOf(hits) {
  const rows = hits.map(row);
  const names = [...new Set(rows.flatMap(Object.keys))];
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [names, ...rows.map((one) => names.map((name) => one[name]))].map((cells) => `${cells.map(cell).join(",")}\r\n`).join("");
}

async function asZip(hits) {
  const files = [{ name: "selection.json", bytes: new TextEncoder().encode(jsonOf(hits)) }];
  for (const [index, hit] of hits.entries()) {
    const reply = await fetch(new URL(hit.thumbnail || thumbnailOf(hit.item_id), document.baseURI));
    if (!reply.ok) throw new Error(`the picture of ${hit.item_id} is not there (any more)`);
    const name = hit.item_id.replace(/[^\w.-]+/g, "_").slice(-80);
    files.push({ name: `pictures/${String(index + 1).padStart(4, "0")}_${name}.jpg`, bytes: new Uint8Array(await reply.arrayBuffer()) });
  }
  download("selection.zip", zipOf(files));
}
