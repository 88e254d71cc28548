/** The gallery's columns: which can be filtered how, and how their values read. Types are those of GET /v1/info. Times are in UTC. */

const HIDDEN = new Set(["item_id", "caption"]);
const IDS = new Set(["image_id", "path", "image_sha256", "frame"]); // nearly as many values as items: asked for, not chosen from
const FIRST = ["person_id", "track", "track_id", "zone", "camera", "camera_id"];
const NAMES = { person_id: "person", track_id: "track", camera_id: "camera", camera: "camera name", added_s: "added" };
const BOX = new Set(["left", "top", "right", "bottom"]); // of a crop in its frame: shown, hardly filtered by

export const nameOf = (column) => NAMES[column] ?? column.replaceAll("_", " ");
export const isWhole = ({ type }) => type === "whole number";
export const isTime = ({ type }) => type.startsWith("time");

/** How a column is filtered: chosen from its values, an id, a range of numbers, of times or of seconds since 1970; null: not at all. */
export function kindOf({ name, type }) {
  if (HIDDEN.has(name)) return null;
  if (BOX.has(name)) return "number";
  if (name === "added_s") return "seconds";
  if (IDS.has(name)) return "id";
  if (isTime({ type })) return "time";
  return type === "number" ? "number" : "value";
}

/** Columns that can be filtered, those that matter most first. */
export function filterable(columns) {
  const rank = ({ name }) => (FIRST.includes(name) ? FIRST.indexOf(name) : name === "time" ? 20 : BOX.has(name) || name === "added_s" ? 98 : IDS.has(name) ? 99 : 50);
  return columns.filter((column) => kindOf(column)).sort((a, b) => rank(a) - rank(b));
}

/** Columns of which one card each can be shown. */
export const groupable = (columns) => filterable(columns).filter((column) => kindOf(column) === "value" && column.type !== "truth value");

const utc = (time) => time.replace("T", " ").replace(/\.0+(?=$|[+Z])/, "").replace(/(\+00:00|Z)$/, " UTC");

/** A value in words. */
export function valueWords(value, { name = "", type = "" } = {}) {
  if (value === null || value === undefined || value === "") return "unknown";
  if (name === "added_s") return utc(new Date(value * 1000).toISOString().replace(/\.\d+/, ""));
  if (isTime({ type })) return utc(String(value));
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(6))) : String(value);
}

/** What a field of a range holds, as the filter wants it; null: nothing. */
export function boundOf(written, column) {
  if (written === "") return null;
  const kind = kindOf(column);
  if (kind === "seconds") return new Date(`${written}Z`).getTime() / 1000;
  return kind === "time" ? written : Number(written);
}

/** The other way round. */
export function writtenBound(bound, column) {
  if (bound === null || bound === undefined) return "";
  return kindOf(column) === "seconds" ? new Date(bound * 1000).toISOString().slice(0, 19) : String(bound);
}

/** A word typed for a column, in the column's type; undefined where it is none. */
export function typedValue(written, column) {
  if (column.type === "truth value") return written === "true";
  if (isWhole(column)) return /^-?\d+$/.test(written.trim()) ? Number(written) : undefined;
  return column.type === "number" ? Number(written) : written;
}

/** Who, where and when of an item, in a few words. */
export function summary(row, columns) {
  const known = (name) => row[name] !== null && row[name] !== undefined;
  const names = FIRST.filter((name) => known(name) && !(name === "camera_id" && known("camera"))); // a camera's own name says it
  const parts = names.map((name) => `${nameOf(name === "camera" ? "camera_id" : name)} ${row[name]}`);
  const times = columns.filter((column) => isTime(column) && row[column.name]);
  const time = times.find(({ name }) => name === "time") ?? times[0];
  if (time) parts.push(valueWords(row[time.name], time).slice(0, 16)); // to the minute
  return parts.join(" · ");
}
