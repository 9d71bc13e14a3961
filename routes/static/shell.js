// The frame of every page: the bar at the top, how the stream is, who one is, messages, and the word that is read out.

import { ApiError, get } from "./api.js";
import { h } from "./dom.js";
import { LANGUAGES, choose, clockTime, language, t, translate } from "./i18n.js";
import * as session from "./session.js";

const STALE_MS = 15_000;
const RESYNCED_MS = 4000;
const ANNOUNCE_MS = 1500;
const TOAST_MS = 8000;

/** How the stream is: live, catching up n, reconnecting in s, stale since hh:mm, resynced, signed out. */
class ConnectionState extends HTMLElement {
  /** @type {import("./stream.js").StreamState} */ #state = { name: "connecting" };
  #resyncedAt = 0;
  #timer = 0;

  connectedCallback() {
    this.#timer = setInterval(() => this.#show(), 1000);
    this.#show();
  }

  disconnectedCallback() {
    clearInterval(this.#timer);
  }

  /** @param {import("./stream.js").TaskHubStream} stream */
  follow(stream) {
    this.#state = stream.state;
    stream.addEventListener("state", (/** @type {any} */ { detail }) => {
      const before = this.#state.name;
      this.#state = detail;
      this.#show();
      if (before !== detail.name && (detail.name === "live" ? before === "reconnecting" || before === "catching_up" : detail.name !== "catching_up")) {
        announce(this.textContent ?? "");
      }
    });
    this.#show();
  }

  /** Something was lost and everything was read anew. */
  resynced() {
    this.#resyncedAt = Date.now();
    this.#show();
  }

  #show() {
    const { name, words } = this.#described();
    if (this.dataset.state !== name) this.dataset.state = name;
    if (this.textContent !== words) this.textContent = words;
  }

  #described() {
    const state = this.#state;
    if (state.name === "live" && Date.now() - this.#resyncedAt < RESYNCED_MS) {
      return { name: "resynced", words: t("state.resynced") };
    }
    if (state.name === "reconnecting") {
      const seconds = Math.max(0, Math.ceil(((state.at ?? 0) - Date.now()) / 1000));
      const again = t("state.reconnecting", { seconds });
      if (Date.now() - (state.since ?? 0) < STALE_MS) return { name: "reconnecting", words: again };
      return { name: "stale", words: `${t("state.stale", { time: clockTime(state.since ?? 0) })} · ${again}` };
    }
    return { name: state.name, words: t(`state.${state.name}`, { count: state.count, detail: state.detail }) };
  }
}
customElements.define("connection-state", ConnectionState);

const live = h("div", { class: "hidden-text", role: "status", "aria-live": "polite" });
const toasts = h("div", { class: "toasts" });
/** @type {string[]} */
let pending = [];
let announcing = 0;

/**
 * Have something read out, politely: what comes within a moment is one sentence, and of much only the last.
 * @param {string} words
 */
export function announce(words) {
  pending.push(words);
  if (announcing) return;
  announcing = setTimeout(() => {
    live.textContent = pending.slice(-3).join(". ");
    pending = [];
    announcing = 0;
  }, ANNOUNCE_MS);
}

/**
 * Tell something at the bottom of the page, with a way on where there is one.
 * @param {string} words
 * @param {{error?: boolean, action?: string, onaction?: () => void}} [options]
 */
export function toast(words, { error = false, action, onaction } = {}) {
  const shown = h(
    "div", { class: error ? "toast error" : "toast", role: error ? "alert" : null },
    h("span", null, words),
    action && h("button", { type: "button", class: "button", onclick: () => (shown.remove(), onaction?.()) }, action),
    h("button", { type: "button", class: "button plain", "aria-label": t("close"), onclick: () => shown.remove() }, "×"),
  );
  // The same again says nothing new.
  for (const old of toasts.children) if (old.querySelector("span")?.textContent === words) old.remove();
  toasts.append(shown);
  while (toasts.children.length > 3) toasts.firstElementChild.remove();
  if (!error) announce(words);
  const leave = () => (shown.matches(":hover, :focus-within") ? setTimeout(leave, TOAST_MS) : shown.remove());
  setTimeout(leave, error ? 2 * TOAST_MS : TOAST_MS);
}

/** Tell what went wrong. @param {unknown} error */
export function tell(error) {
  if (error instanceof ApiError && error.status === 401) return askForKey();
  if (error instanceof DOMException && error.name === "AbortError") return undefined;
  return toast(error instanceof ApiError ? error.words : String(error), { error: true });
}

/** The bar's connection state. @returns {ConnectionState} */
export const connection = () => /** @type {any} */ (document.querySelector("connection-state"));

/**
 * Make the bar, and ask for the key where one is needed.
 * @returns {Promise<{actor: string, user: any, scopes: string[]}>} who calls; pending until the server lets them in
 */
export async function start() {
  translate();
  document.title = `${t(`nav.${document.body.dataset.page}`)} · TaskHub`;
  const tools = /** @type {HTMLElement} */ (document.querySelector(".shell-tools"));
  tools.append(new ConnectionState(), languages());
  document.body.append(live, toasts);
  if (session.signedOut()) await askForKey();
  for (;;) {
    try {
      return await get("/api/v1/me");
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) await askForKey(t("key.refused"));
      else await unreachable(error);
    }
  }
}

function languages() {
  const select = h(
    "select", { "aria-label": t("language"), onchange: () => choose(select.value) },
    Object.entries(LANGUAGES).map(([tag, name]) => h("option", { value: tag, lang: tag, selected: tag === language }, name)),
  );
  return select;
}

/** @type {Promise<void> | null} */
let asked = null;

/** Ask for the API key, which only the server knows whether it is one. @returns {Promise<void>} */
function askForKey(why = "") {
  asked ??= new Promise((resolve) => {
    session.signOut();
    const input = h("input", { id: "key", type: "password", autocomplete: "off", required: true, spellcheck: "false" });
    const save = (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      session.signIn(input.value.trim());
      dialog.close();
      dialog.remove();
      asked = null;
      if (why === "" && document.body.dataset.started) location.reload();
      resolve();
    };
    const dialog = h(
      "dialog", { "aria-labelledby": "key-title", oncancel: (/** @type {Event} */ event) => event.preventDefault() },
      h(
        "form", { onsubmit: save },
        h("h2", { id: "key-title" }, t("key.title")),
        h("p", null, t("key.about")),
        why && h("p", { class: "notice error", role: "alert" }, why),
        h("div", { class: "field" }, h("label", { for: "key" }, t("key.label")), input),
        h("p", { class: "quiet small" }, t("key.kept")),
        h("div", { class: "actions" }, h("button", { class: "button main" }, t("key.go"))),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
  return asked;
}

/** Say that nobody answers, and wait until somebody wants it tried again. @param {unknown} error */
function unreachable(error) {
  return new Promise((resolve) => {
    const again = () => {
      clearTimeout(timer);
      notice.remove();
      resolve(undefined);
    };
    const notice = h(
      "p", { class: "notice error", role: "alert" },
      h("span", null, error instanceof ApiError ? error.words : String(error)),
      h("button", { type: "button", class: "button", onclick: again }, t("again")),
    );
    document.querySelector("main")?.prepend(notice);
    const timer = setTimeout(again, 5000);
  });
}
