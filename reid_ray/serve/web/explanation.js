/** Why an item is a hit: the query's words by what the score loses without each, and the same of the picture's patches, as a heat map. */

import { make } from "./dom.js";

const signed = (effect) => `${effect < 0 ? "−" : "+"}${Math.abs(effect).toFixed(3)}`;

/** The words, underlined by effect, the effect beside each. @param {{word: string, effect: number}[]} words */
export function weighedWords(words) {
  const most = Math.max(...words.map(({ effect }) => Math.abs(effect)), 1e-9);
  const spans = words.map(({ word, effect }) => {
    const span = make("span", { class: effect < 0 ? "against" : "" }, word, make("small", {}, signed(effect)));
    span.style.setProperty("--share", `${Math.round((100 * Math.abs(effect)) / most)}%`);
    return span;
  });
  return make("p", { class: "weighed" }, ...spans);
}

/** The heat map, a canvas to lie over the picture: orange where the score needs the patch, blue where it is better without. */
export function heatMap({ rows, columns, effects }) {
  const canvas = make("canvas", { width: columns, height: rows, role: "img", "aria-label": heatWords({ rows, columns, effects }) });
  const most = Math.max(...effects.flat().map(Math.abs), 1e-9);
  const image = new ImageData(columns, rows);
  effects.flat().forEach((effect, patch) => image.data.set([...(effect < 0 ? [40, 120, 255] : [255, 140, 0]), Math.round((190 * Math.abs(effect)) / most)], 4 * patch));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** Where the patches lie that matter most, in words. */
export function heatWords({ rows, columns, effects }) {
  const flat = effects.flat();
  const best = flat.indexOf(Math.max(...flat));
  const part = (at, of, names) => names[Math.min(2, Math.floor((3 * (at + 0.5)) / of))];
  const down = part(Math.floor(best / columns), rows, ["upper", "middle", "lower"]);
  const over = part(best % columns, columns, ["left", "middle", "right"]);
  return `Heat map of the patches: the one that counts most is ${down === over ? "in the middle" : `${down} ${over}`}, ${signed(flat[best])}`;
}
