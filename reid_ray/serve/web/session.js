/** Who searches, for which purpose, and how the page looks: log in, log out, purpose, colour scheme. */

import * as api from "./api.js";
import { at, button, make, openDialog } from "./dom.js";
import * as past from "./past.js";
import { showProblem } from "./problems.js";

const SCHEME = "reid_ray.scheme";
const PURPOSE = "reid_ray.purpose";

/** The scheme that was chosen in this browser; without one the system's counts. */
export function applyScheme(scheme = localStorage.getItem(SCHEME) ?? "") {
  if (scheme) {
    document.documentElement.dataset.scheme = scheme;
    localStorage.setItem(SCHEME, scheme);
  } else {
    delete document.documentElement.dataset.scheme;
    localStorage.removeItem(SCHEME);
  }
}

/** The purpose that was stated in this tab. */
export function applyPurpose(words = sessionStorage.getItem(PURPOSE) ?? "") {
  sessionStorage.setItem(PURPOSE, words);
  api.statePurpose(words);
}

/** Asks for a token until the service takes one. @param {() => void} then */
export function askLogin(then) {
  const dialog = at("login");
  const token = make("input", { type: "password", id: "token", autocomplete: "current-password", required: true, autofocus: true });
  const purpose = make("input", { type: "text", id: "login-purpose", value: sessionStorage.getItem(PURPOSE) ?? "", maxLength: 200 });
  const problem = make("div");
  const go = make("button", { class: "first" }, "Log in");
  const onsubmit = async (event) => {
    event.preventDefault();
    go.disabled = true;
    try {
      await api.login({ token: token.value.trim(), ...(purpose.value.trim() ? { purpose: purpose.value.trim() } : {}) });
      applyPurpose(purpose.value);
      dialog.close();
      then();
    } catch (error) {
      showProblem(problem, error);
      token.select();
    } finally {
      go.disabled = false;
    }
  };
  const form = make(
    "form",
    { class: "stack", onsubmit },
    make("p", {}, "This service asks who searches. Your token came from whoever runs it."),
    make("label", { class: "wide" }, "Token", token),
    make("label", { class: "wide" }, "What you search for (written into the audit log)", purpose),
    problem,
    go,
  );
  dialog.className = "small";
  openDialog(dialog, "Log in", form);
}

/** @param {{me: {name: string, role: string, login: boolean}, onOut: () => void}} options */
export function createSettings({ me, onOut }) {
  const dialog = at("settings");
  const open = () => {
    const scheme = document.documentElement.dataset.scheme ?? "";
    const radio = ([value, words]) => make("label", {}, make("input", { type: "radio", name: "scheme", value, checked: value === scheme, onchange: () => applyScheme(value) }), words);
    const schemes = make("fieldset", {}, make("legend", {}, "Colours"), make("div", { class: "row" }, ...[["", "as the system"], ["light", "light"], ["dark", "dark"]].map(radio)));
    const purpose = make("input", { type: "text", id: "purpose", value: sessionStorage.getItem(PURPOSE) ?? "", maxLength: 200, onchange: () => applyPurpose(purpose.value) });
    const problem = make("div");
    const out = async () => {
      try {
        await api.logout();
        past.forget();
        applyPurpose("");
        dialog.close();
        onOut();
      } catch (error) {
        showProblem(problem, error);
      }
    };
    const keys = [["↓ in the search field", "to the pictures"], ["arrows, Home, End", "through the pictures"], ["Enter", "enlarge"], ["s, m, n on a picture", "select, more like this, not this"], ["← → enlarged", "previous, next"], ["Escape", "close"]];
    dialog.className = "small";
    openDialog(
      dialog,
      "Settings",
      make(
        "div",
        { class: "stack" },
        make("p", {}, `You are ${me.name}, role ${me.role}. `, me.login && button("Log out", out)),
        problem,
        make("label", { class: "wide" }, "What you search for (written into the audit log, kept in this tab)", purpose),
        schemes,
        make("h3", {}, "Keys"),
        make("dl", {}, ...keys.flatMap(([key, does]) => [make("dt", {}, key), make("dd", {}, does)])),
      ),
    );
  };
  at("show-settings").onclick = open;
}
