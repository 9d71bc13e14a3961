// The forms by which people sign in and choose a password: on a page of their own, and over one whose session is over.
//
// Real forms with the usual names and `autocomplete`, so that password managers know what they see.

import { ApiError, call } from "./api.js";
import { h } from "./dom.js";
import { t } from "./i18n.js";
import { tellTabs } from "./session.js";

export const MIN_PASSWORD = 12;
const MAX_PASSWORD = 256;

/**
 * What a session is opened with: name and password, or a link's secret.
 * @param {{name: string, password: string, workspace?: string} | {link: string}} ways
 * @returns {Promise<{user: string, name: string, has_password: boolean}>} who is signed in. Rejects with ApiError.
 */
export async function signIn(ways) {
  const signedIn = await call("POST", "/api/v1/session", ways);
  tellTabs(signedIn.user);
  return signedIn;
}

/**
 * Asks for name and password until they are right.
 * @param {{name?: string, workspace?: string, done: (signedIn: {user: string}) => void}} options
 * @returns {HTMLFormElement}
 */
export function signInForm({ name = "", workspace, done }) {
  const user = input({ name: "username", autocomplete: "username", autocapitalize: "none", spellcheck: "false", value: name, maxlength: 200 });
  const password = input({ name: "password", type: "password", autocomplete: "current-password", maxlength: MAX_PASSWORD });
  return form({
    fields: [labelled(t("session.name"), user), labelled(t("session.password"), password)],
    go: t("session.sign_in"),
    async submit() {
      const signedIn = await signIn({ name: user.value, password: password.value, workspace });
      password.value = "";
      done(signedIn);
    },
    failed: () => password.select(),
    blame: () => password,
  });
}

/**
 * Leads to the OpenID provider, where the server has one. A link and no form: what forms lead to is this server alone.
 * @param {{next: string, workspace?: string, elsewhere?: boolean}} options `elsewhere`: in another tab, so that what is
 *   on this page stays
 * @returns {HTMLElement | null}
 */
export function providerLink({ next, workspace, elsewhere = false }) {
  const { openid: name, openidAt: at } = document.body.dataset;
  if (!name || !at) return null;
  const query = new URLSearchParams({ next, ...(workspace ? { workspace } : {}) });
  const target = elsewhere ? { target: "_blank" } : {};
  return h("div", { class: "actions" }, h("a", { class: "button provider", href: `${at}?${query}`, ...target }, t("session.provider", { name })));
}

/**
 * Asks for a new password.
 * @param {{name: string, current: boolean, done: () => void, later?: () => void}} options `current`: the old one has to
 *   be told; `later`: what happens when somebody does not want one now
 * @returns {HTMLFormElement}
 */
export function passwordForm({ name, current, done, later }) {
  // Not to be filled in: it tells a password manager whose password this is.
  const user = h("input", { class: "hidden-text", name: "username", autocomplete: "username", value: name, readonly: true, tabindex: -1, "aria-hidden": "true" });
  const old = input({ name: "current-password", type: "password", autocomplete: "current-password", maxlength: MAX_PASSWORD });
  const chosen = input({
    name: "new-password", type: "password", autocomplete: "new-password", minlength: MIN_PASSWORD, maxlength: MAX_PASSWORD, "aria-describedby": "password-about",
  });
  return form({
    fields: [
      user, current && labelled(t("session.current_password"), old), labelled(t("session.new_password"), chosen),
      h("p", { class: "quiet small", id: "password-about" }, t("session.password_about", { min: MIN_PASSWORD })),
    ],
    go: t("save"),
    later,
    async submit() {
      const body = current ? { password: chosen.value, current_password: old.value } : { password: chosen.value };
      await call("PUT", "/api/v1/session/password", body);
      done();
    },
    failed: (error) => (refused(error, "/current_password") ? old : chosen).select(),
    blame: (error) => (refused(error, "/current_password") ? old : chosen),
  });
}

/** What went wrong, for a person. @param {unknown} error */
export function wordsOf(error) {
  if (!(error instanceof ApiError)) return String(error);
  return refused(error, "/current_password") ? t("session.wrong_password") : error.words;
}

/** @param {unknown} error @param {string} pointer */
function refused(error, pointer) {
  return error instanceof ApiError && (error.problem.errors ?? []).some((/** @type {any} */ fault) => fault.pointer === pointer);
}

let number = 0;

/** @param {Record<string, any>} properties @returns {HTMLInputElement} */
const input = (properties) => h("input", { id: `sign-in-${++number}`, required: true, ...properties });

/** @param {string} label @param {HTMLElement} control */
const labelled = (label, control) => h("div", { class: "field" }, h("label", { for: control.id }, label), control);

/**
 * @param {{fields: any[], go: string, later?: () => void, submit: () => Promise<void>,
 *   failed: (error: unknown) => void, blame: (error: unknown) => HTMLInputElement}} options
 * @returns {HTMLFormElement}
 */
function form({ fields, go, later, submit, failed, blame }) {
  const main = h("button", { class: "button main" }, go);
  const trouble = h("p", { class: "notice error", role: "alert", id: `trouble-${++number}`, hidden: true });
  const element = h(
    "form", { class: "sign-in", method: "post", onsubmit: async (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      if (main.disabled) return;
      main.disabled = true;
      trouble.hidden = true;
      for (const control of element.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
      try {
        await submit();
      } catch (error) {
        trouble.replaceChildren(h("span", null, wordsOf(error)));
        trouble.hidden = false;
        if (error instanceof ApiError && error.status < 429 && error.status >= 400) {
          blame(error).setAttribute("aria-invalid", "true");
          failed(error);
        }
      }
      main.disabled = false;
    } },
    fields, trouble,
    h("div", { class: "actions" }, later && h("button", { type: "button", class: "button", onclick: later }, t("session.later")), main),
  );
  return element;
}
