/** What is searched for: the words, pictures that are chosen, dropped or pasted, and items, each with a weight. */

import { thumbnailOf } from "./api.js";
import { at, button, make, picture } from "./dom.js";

const WEIGHT_WORDS = (weight) => (weight < 0 ? `less, ${-weight}` : `weight ${weight}`);

/**
 * @param {{onClues: (clues: import("./address.js").Clue[]) => void, onPut: (without: string[]) => void}} options
 * @returns {{show: (sought: import("./address.js").Sought) => void, clues: () => import("./address.js").Clue[]}} `clues`: as they stand now
 */
export function createQuery({ onClues, onPut }) {
  const place = at("query");
  const text = at("text");
  let clues = [];

  /** The clues with what now stands in the field, which is the first text. */
  function withText(others = clues) {
    const words = text.value.trim();
    const first = others.findIndex((clue) => clue.kind === "text");
    if (first < 0) return words ? [{ kind: "text", text: words, weight: 1 }, ...others] : others;
    return words ? others.with(first, { ...others[first], text: words }) : others.filter((_, place) => place !== first);
  }

  function addPictures(files) {
    const images = [...files].filter((file) => file.type.startsWith("image/"));
    if (!images.length) return;
    const added = images.map((image) => ({ kind: "image", image, name: image.name || "pasted picture", url: URL.createObjectURL(image), weight: 1 }));
    onClues([...withText(), ...added]);
  }

  function chip(clue, index) {
    const name = clue.kind === "text" ? `“${clue.text}”` : clue.kind === "item" ? `item ${clue.id}` : clue.name;
    const source = clue.kind === "item" ? thumbnailOf(clue.id) : clue.url;
    const told = make("output", {}, WEIGHT_WORDS(clue.weight));
    const slider = make("input", { type: "range", min: -1, max: 2, step: 0.25, value: clue.weight, id: `weight-${index}`, "aria-label": `Weight of ${name}` });
    slider.oninput = () => (told.textContent = WEIGHT_WORDS(Number(slider.value)));
    slider.onchange = () => onClues(withText(clues.map((other) => (other === clue ? { ...other, weight: Number(slider.value) } : other))));
    const away = button("×", () => onClues(clues.filter((other) => other !== clue)), { class: "plain", "aria-label": `Remove ${name} from the search`, title: "Remove" });
    return make("div", { class: clue.weight < 0 ? "clue less" : "clue" }, source && picture(source, ""), make("span", { class: "what", title: name }, name), slider, told, away);
  }

  function show(sought) {
    const focused = document.activeElement?.id;
    clues = sought.clues;
    text.value = clues.find((clue) => clue.kind === "text")?.text ?? "";
    const plain = clues.length === 0 || (clues.length === 1 && clues[0].kind === "text" && clues[0].weight === 1);
    const parts = plain ? [] : clues.map(chip);
    if (text.value) parts.push(button("Add another description", another, { class: "plain" }));
    if (clues.some((clue) => clue.kind === "image")) parts.push(make("p", { class: "note" }, "A picture is not part of the address: whoever opens this link searches by the rest."));
    if (sought.without.length) {
      parts.push(make("p", { class: "note" }, `${sought.without.length} left out. `, button("Show them again", () => onPut([]), { class: "plain" })));
    }
    place.replaceChildren(...parts);
    place.hidden = !parts.length;
    if (focused?.startsWith("weight-")) at(focused)?.focus();
  }

  /** The first text stays as a clue further down, and the field is free for another. */
  function another() {
    const present = withText();
    const first = present.find((clue) => clue.kind === "text");
    clues = [{ kind: "text", text: "", weight: 1 }, first, ...present.filter((clue) => clue !== first)];
    text.value = "";
    text.focus();
  }

  at("ask").onsubmit = (event) => {
    event.preventDefault();
    if (matchMedia("(pointer: coarse)").matches) text.blur(); // a phone's keyboard would hide the hits
    onClues(withText());
  };
  at("pick").onclick = () => at("files").click();
  at("files").onchange = () => {
    addPictures(at("files").files);
    at("files").value = "";
  };
  listenForPictures(addPictures);
  return { show, clues: () => withText() };
}

/** Pictures dropped anywhere on the page, or pasted where no field takes what is pasted. */
function listenForPictures(add) {
  const curtain = at("drop");
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files") && !document.querySelector("dialog[open]");
  document.addEventListener("dragover", (event) => {
    event.preventDefault(); // a file dropped beside the curtain must not replace the page
    curtain.hidden = !carriesFiles(event);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) curtain.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    if (event.target instanceof HTMLInputElement && event.target.type === "file") return;
    event.preventDefault();
    curtain.hidden = true;
    if (carriesFiles(event)) add(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length && !document.querySelector("dialog[open]")) {
      event.preventDefault();
      add(event.clipboardData.files);
    }
  });
}
