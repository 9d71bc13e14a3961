// The page where people sign in: by name and password, or by the link that brought them here.

import { ApiError, get } from "./api.js";
import { h } from "./dom.js";
import { t, translate } from "./i18n.js";
import { languages } from "./shell.js";
import { tellTabs } from "./session.js";
import { passwordForm, providerLink, signIn, signInForm, wordsOf } from "./sign-in.js";

const TROUBLES = new Set(["declined", "expired", "unavailable", "unverified", "domain", "unknown", "too_many", "busy"]);

const main = /** @type {HTMLElement} */ (document.querySelector("main"));

/** Whose users' names are asked for, where the address says so: `/login?workspace=acme`. */
const workspace = new URLSearchParams(location.search).get("workspace") ?? undefined;

/** The secret of a link that leads here. What stands behind # no server gets to see. */
function takeLink() {
  const found = /^#link=(.+)$/.exec(location.hash)?.[1];
  // Out of the address, where it could be copied or bookmarked.
  if (found) history.replaceState(null, "", location.pathname + location.search);
  return found;
}

/** Where to go on: an address of this server, whatever the one of this page says. */
function next() {
  try {
    const wanted = new URL(new URLSearchParams(location.search).get("next") ?? "/", location.origin);
    // All of the address: a path of its own that begins with // would be another server's.
    if (wanted.origin === location.origin && !/^\/login(\/|$)/.test(wanted.pathname)) return wanted.origin + wanted.pathname + wanted.search;
  } catch {
    // No address at all.
  }
  return "/";
}

const goOn = () => location.replace(next());

/** @param {string} title @param {any[]} content */
function show(title, ...content) {
  const card = h("div", { class: "card" }, h("h1", { tabindex: -1 }, title), content);
  main.replaceChildren(card);
  const first = /** @type {HTMLElement | null} */ (card.querySelector("input:not([readonly]), .button.main"));
  first?.focus();
}

function askForPassword(trouble = "") {
  show(
    t("session.title"), trouble && h("p", { class: "notice error", role: "alert" }, h("span", null, trouble)),
    signInForm({ workspace, done: goOn }), providerLink({ next: new URLSearchParams(location.search).get("next") ?? "/", workspace }), h("p", { class: "quiet small" }, t("session.no_password")),
  );
}

/** A button and not at once: else whoever makes a link could sign others in as somebody, by having them look at it.
 * @param {string} link */
function offerLink(link) {
  const go = h("button", { type: "button", class: "button main", onclick: async () => {
    go.disabled = true;
    try {
      offerPassword(await signIn({ link }));
    } catch (error) {
      if (error instanceof ApiError && error.code === "sign_in_refused") askForPassword(t("session.link_over"));
      else {
        main.querySelector(".notice")?.remove();
        go.before(h("p", { class: "notice error", role: "alert" }, h("span", null, wordsOf(error))));
        go.disabled = false;
      }
    }
  } }, t("session.sign_in"));
  show(t("session.title"), h("p", null, t("session.link_about")), h("div", { class: "actions" }, go));
}

/** @param {{name: string, has_password: boolean}} signedIn */
function offerPassword({ name, has_password: known }) {
  show(
    t("session.welcome", { name }), h("p", null, t(known ? "session.replace_password" : "session.choose_password")),
    passwordForm({ name, current: false, done: goOn, later: goOn }),
  );
}

translate();
document.title = `${t("nav.login")} · TaskHub`;
document.querySelector(".shell-tools")?.append(languages());
const brought = takeLink();
/** What went wrong at the provider, where one comes back from there. */
const trouble = new URLSearchParams(location.search).get("trouble");
if (brought) offerLink(brought);
else if (trouble) askForPassword(t(TROUBLES.has(trouble) ? `session.trouble.${trouble}` : "session.trouble.refused", { name: document.body.dataset.openid ?? "" }));
else {
  // Whoever is signed in already only wants to go on.
  get("/api/v1/session").then((signedIn) => {
    // Who comes back from the provider is signed in here first.
    tellTabs(signedIn.user);
    goOn();
  }, (error) => askForPassword(error instanceof ApiError && error.status < 500 && error.status > 0 ? "" : wordsOf(error)));
}
// A link pasted where this page is shown already.
addEventListener("hashchange", () => {
  const pasted = takeLink();
  if (pasted) offerLink(pasted);
});
