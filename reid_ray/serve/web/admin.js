/** What writers and administrators do: add, jobs, delete, erase; erasures, generations, snapshots, the audit log. Loaded for those roles alone. */

import { createAdding, createTableAdding } from "./admin_add.js";
import { createJobs } from "./admin_jobs.js";
import { auditLog, erasureList, generationList } from "./admin_records.js";
import { createRemoving } from "./admin_remove.js";
import { at, make, openDialog } from "./dom.js";

/**
 * @param {{columns: {name: string, type: string}[], role: string, filter: () => any, selected: () => string[],
 *   onChange: () => void}} options
 * @returns {{open: (section?: string) => void}}
 */
export function createAdmin(options) {
  const dialog = at("admin");
  const onJobs = () => openSection("jobs");
  const adding = createAdding({ ...options, onJobs }); // goes on while the dialog is closed
  const addingTable = createTableAdding({ ...options, onJobs });
  /** @typedef {[string, string, (place: HTMLElement) => any]} Section @type {Section[]} */
  const forAdmins = [["erasures", "Erasures and receipts", erasureList], ["generations", "Generations and snapshots", generationList(options)], ["audit", "Audit log", auditLog]];
  const isAdmin = options.role === "admin";
  /** @type {Section[]} */
  const sections = [
    ["add", "Add pictures", adding],
    ["table", "Add a table", addingTable],
    ["jobs", "Jobs", createJobs(options)],
    ["remove", isAdmin ? "Delete or erase" : "Delete", createRemoving(options)],
    ...(isAdmin ? forAdmins : []),
  ];

  function open(wanted = "add") {
    const parts = sections.map(([name, title, fill]) => {
      const place = make("div", { class: "stack" });
      const part = make("details", { name: "admin", id: `admin-${name}` }, make("summary", {}, title), place);
      part.addEventListener("toggle", () => part.open && fill(place));
      part.open = name === wanted;
      return part;
    });
    openDialog(dialog, "Manage the gallery", ...parts);
    openSection(wanted);
  }

  /** The others close: their name is the same. */
  function openSection(name) {
    const part = at(`admin-${name}`);
    part.open = true;
    part.querySelector("summary").focus();
  }
  return { open };
}
