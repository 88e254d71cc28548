/** The labelling page: one question at a time, answered by a button or a key; every answer is kept by the server before the next one. */

import { at, button, make, picture, plural } from "./dom.js";

const KEYS = { s: "same", d: "different", k: "skip", u: "undo" };
const AGAIN_MS = 5000; // while others look at what is left
let question = null;
let busy = false;
let waiting;

/** A name of this browser, so that its last answer can be taken back and two people are not asked the same. */
function who() {
  let name = localStorage.getItem("reid-ray-label-who");
  if (!name) {
    name = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    localStorage.setItem("reid-ray-label-who", name);
  }
  return name;
}

/** The server's answer, or an error whose message is a sentence. */
async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer; start reid-ray label ask again. Every answer so far is kept.");
  }
  const said = await response.json();
  if (!response.ok) throw new Error(said.detail);
  return said;
}

function side(found, name) {
  const person = found.person_id === null ? "" : `, person ${found.person_id} in the table`;
  const pictures = found.pictures.map((each, place) =>
    make(
      "li",
      {},
      picture(`label/pictures/${each.row}`, place ? `Another picture of ${name}` : `${name}`),
      found.count > 1 && button("Take out", () => say("out", [each.row]), { class: "plain", ariaLabel: `Take ${each.image_id} out of ${name}` }),
    ),
  );
  return make("div", { class: "side" }, make("h2", {}, name), make("p", { class: "soft" }, `${plural(found.count, "picture")}${person}`), make("ol", {}, ...pictures));
}

function show(found) {
  question = found.question;
  const clash = found.contradictions ? `, ${plural(found.contradictions, "contradiction")}` : "";
  at("progress").textContent = `${plural(found.decided, "decision")}, ${plural(found.open, "pair")} open${clash}`;
  at("answers").hidden = false;
  for (const id of ["same", "different", "skip"]) at(id).disabled = question === null;
  clearTimeout(waiting);
  if (question === null) {
    const words = found.open ? "Others look at what is left." : "Nothing is open. reid-ray label write makes a table with these identities.";
    at("question").replaceChildren(make("p", {}, words));
    if (found.open) waiting = setTimeout(next, AGAIN_MS);
    return;
  }
  const notes = question.contradiction ? [make("p", { class: "problem" }, make("strong", {}, "Answers contradict each other here."), " Say anew, or take a picture out.")] : [];
  const sides = question.sides.map((each, place) => side(each, place ? "Right" : "Left"));
  at("question").replaceChildren(...notes, make("div", { class: "sides" }, ...sides), make("p", { class: "soft" }, `Alike: ${question.score}`));
}

async function next() {
  try {
    show(await ask(`label/question?who=${who()}`));
    at("problem").replaceChildren();
  } catch (error) {
    at("problem").replaceChildren(make("div", { class: "problem" }, make("p", {}, error.message), button("Try again", next)));
  }
}

/** Says something of pictures; of those that are asked about, if none are given. */
async function say(says, pictures) {
  if (busy || (says !== "undo" && !pictures && question === null)) return;
  busy = true;
  try {
    if (says === "undo") await ask("label/undo", { who: who() });
    else await ask("label/decisions", { says, pictures: pictures ?? question.pair, who: who() });
    await next();
  } catch (error) {
    at("problem").replaceChildren(make("div", { class: "problem" }, make("p", {}, error.message), button("Try again", next)));
  } finally {
    busy = false;
  }
}

for (const says of Object.values(KEYS)) at(says).addEventListener("click", () => say(says));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const says = KEYS[event.key.toLowerCase()];
  if (says) say(says);
});
next();
