/**
 * What is searched for, and its form in the address, so that back, forward and a shared link find it again. A picture is not in the
 * address: it stays on this page, and whoever opens the link searches by the rest.
 *
 * @typedef {{kind: "text" | "item" | "image", weight: number, text?: string, id?: string, image?: Blob, name?: string, url?: string}} Clue
 * @typedef {{clues: Clue[], where: Record<string, any>, without: string[], onePer: string, k: number | null}} Sought
 */

/** @type {Sought} */
export const NOTHING = Object.freeze({ clues: [], where: {}, without: [], onePer: "", k: null });

/** The address of a search, relative to the page: "./?q=red+jacket". @param {Sought} sought */
export function addressOf(sought) {
  const words = new URLSearchParams();
  for (const clue of sought.clues) {
    if (clue.kind === "text" && clue.weight === 1) words.append("q", clue.text);
    else if (clue.kind !== "image") words.append(clue.kind, `${clue.weight}~${clue.kind === "text" ? clue.text : clue.id}`);
  }
  if (Object.keys(sought.where).length) words.set("where", JSON.stringify(sought.where));
  for (const id of sought.without) words.append("without", id);
  if (sought.onePer) words.set("one_per", sought.onePer);
  if (sought.k) words.set("k", String(sought.k));
  return words.size ? `./?${words}` : "./";
}

/** The search of an address, and the parts of it that could not be read. @param {string} query @returns {{sought: Sought, unread: string[]}} */
export function soughtIn(query) {
  const words = new URLSearchParams(query);
  const unread = [];
  /** @type {Clue[]} */
  const clues = words.getAll("q").filter((text) => text.trim()).map((text) => ({ kind: "text", text, weight: 1 }));
  for (const kind of /** @type {("text" | "item")[]} */ (["text", "item"])) {
    for (const written of words.getAll(kind)) {
      const cut = written.indexOf("~");
      const weight = Number(written.slice(0, Math.max(cut, 0)) || NaN);
      if (cut < 1 || !Number.isFinite(weight)) unread.push(`${kind}=${written}`);
      else clues.push({ kind, weight, [kind === "text" ? "text" : "id"]: written.slice(cut + 1) });
    }
  }
  let where = {};
  if (words.has("where")) {
    try {
      where = JSON.parse(words.get("where"));
      if (where === null || typeof where !== "object" || Array.isArray(where)) throw new SyntaxError();
    } catch {
      where = {};
      unread.push("where");
    }
  }
  const k = Number(words.get("k"));
  return { sought: { clues, where, without: words.getAll("without"), onePer: words.get("one_per") ?? "", k: Number.isInteger(k) && k > 0 ? k : null }, unread };
}

/** What it says in few words, for the title and the history. @param {Sought} sought */
export function wordsOf(sought) {
  const parts = sought.clues.map((clue) => `${clue.weight < 0 ? "not " : ""}${clue.kind === "text" ? clue.text : clue.kind === "item" ? `like ${clue.id}` : `picture ${clue.name}`}`);
  const filters = Object.entries(sought.where).map(([column, wanted]) => `${column}: ${wantedWords(wanted)}`);
  return [parts.join(" + "), ...filters].filter(Boolean).join(", ");
}

function wantedWords(wanted) {
  if (Array.isArray(wanted)) return wanted.join(" or ");
  return wanted !== null && typeof wanted === "object" ? `${wanted.from ?? "…"} to ${wanted.to ?? "…"}` : String(wanted);
}

/** The service's question. Items that are clues are not among its hits. @param {Sought} sought */
export async function questionOf(sought, k, cursor) {
  /** @type {Record<string, any>} */
  const question = { ...(await cluesOf(sought)), k };
  if (Object.keys(sought.where).length) question.where = sought.where;
  const items = sought.clues.filter((clue) => clue.kind === "item").map((clue) => clue.id);
  if (sought.without.length || items.length) question.without = [...new Set([...sought.without, ...items])];
  if (sought.onePer) question.one_per = sought.onePer;
  if (cursor) question.cursor = cursor;
  return question;
}

/** Its clues alone, as a question and an explanation have them. @param {Sought} sought */
export async function cluesOf(sought) {
  return { clues: await Promise.all(sought.clues.map(async (clue) => ({ ...(await whatOf(clue)), weight: clue.weight }))) };
}

async function whatOf(clue) {
  if (clue.kind === "text") return { text: clue.text };
  return clue.kind === "item" ? { item: clue.id } : { image: await base64(clue.image) };
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).split(",")[1] ?? "");
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
