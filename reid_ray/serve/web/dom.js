/** Elements without HTML: whatever comes from a gallery or a query goes in as a text node, so it shows as text whatever it holds. */

/** @param {string} id @returns {any} */
export const at = (id) => document.getElementById(id);

/**
 * An element. Properties that are no property of the element become attributes, `on...` become listeners; null and false leave out.
 * @param {string} tag @param {Record<string, any>} properties @param {...(Node | string | number | null | false | undefined)} children
 * @returns {any}
 */
export function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name in node && name !== "list") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false).map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

/** A button that is no submit button. */
export const button = (words, onclick, properties = {}) => make("button", { type: "button", onclick, ...properties }, words);

/** A picture of the gallery; where there is none (any more), words in its place. */
export function picture(path, alt, properties = {}) {
  const image = make("img", { src: path, alt, decoding: "async", ...properties });
  image.addEventListener("error", () => image.replaceWith(make("span", { class: "lost" }, "no picture")), { once: true });
  return image;
}

/** A dialog's content anew, with its heading and a way out, and the dialog opened. */
export function openDialog(dialog, title, ...children) {
  const heading = make("h2", { id: `${dialog.id}-title` }, title);
  dialog.replaceChildren(make("div", { class: "top" }, heading, button("Close", () => dialog.close(), { class: "plain" })), ...children);
  if (dialog.open) dialog.focus(); // what had the focus may be gone
  else dialog.showModal();
}

/** A file for the user to keep. */
export function download(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export const number = (value) => value.toLocaleString("en");
export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
