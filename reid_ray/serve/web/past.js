/** The searches of this browser, kept in this browser alone: what they were, never what they found. */

import { at, button, make, openDialog } from "./dom.js";

const KEY = "reid_ray.past";
const OFF = "reid_ray.past.off";
const MOST = 100;

export const isOn = () => localStorage.getItem(OFF) === null;
export const forget = () => localStorage.removeItem(KEY);

/** @returns {{address: string, words: string, at: number}[]} latest first */
function kept() {
  try {
    const read = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(read) ? read : [];
  } catch {
    return []; // written by something else: the next search writes it anew
  }
}

export function turn(on) {
  if (on) return localStorage.removeItem(OFF);
  localStorage.setItem(OFF, "1");
  return forget();
}

/** Keeps a search; one that was there before moves to the front. */
export function remember(address, words) {
  if (!isOn() || !words) return;
  localStorage.setItem(KEY, JSON.stringify([{ address, words, at: Date.now() }, ...kept().filter((one) => one.address !== address)].slice(0, MOST)));
}

/** @param {{onGo: (address: string) => void}} options */
export function createPast({ onGo }) {
  const dialog = at("past");
  function open() {
    const entry = (one) => {
      const go = (event) => {
        event.preventDefault();
        dialog.close();
        onGo(one.address);
      };
      return make("li", {}, make("a", { href: one.address.startsWith("./") ? one.address : "./", onclick: go }, one.words), make("div", { class: "soft" }, new Date(one.at).toLocaleString("en-GB")));
    };
    const entries = kept();
    const toggle = (event) => (turn(event.target.checked), open());
    const box = make("input", { type: "checkbox", checked: isOn(), onchange: toggle });
    const list = entries.length ? make("ol", {}, ...entries.map(entry)) : make("p", { class: "soft" }, isOn() ? "No searches yet." : "Searches are not kept.");
    const clear = button("Clear the history", () => (forget(), open()), { disabled: !entries.length });
    openDialog(dialog, "History", make("p", { class: "soft" }, "Kept in this browser alone, without results. Logging out clears it."), make("div", { class: "row" }, make("label", {}, box, "Keep my searches"), clear), list);
  }
  at("show-past").onclick = open;
}
