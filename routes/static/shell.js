// The frame of every page: the bar at the top, how the stream is, who one is, messages, and the word that is read out.

import { ApiError, get, words } from "./api.js";
import { h } from "./dom.js";
import { LANGUAGES, choose, clockTime, language, t, translate } from "./i18n.js";
import { afterFrame } from "./pace.js";
import { asksWho, onSignIn, signInAddress } from "./session.js";

const STALE_MS = 15_000;
const RESYNCED_MS = 4000;
const ANNOUNCE_MS = 1500;
const TOAST_MS = 8000;

/** How the stream is: live, catching up n, reconnecting in s, stale since hh:mm, resynced, signed out. */
class ConnectionState extends HTMLElement {
  /** @type {import("./stream.js").StreamState} */ #state = { name: "connecting" };
  /** @type {import("./stream.js").TaskHubStream | null} */ #stream = null;
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
    this.#stream = stream;
    this.#state = stream.state;
    stream.addEventListener("state", (/** @type {any} */ { detail }) => {
      const before = this.#state.name;
      this.#state = detail;
      this.#show();
      if (detail.name === "signed_out") signedOut();
      if (before !== detail.name && (detail.name === "live" ? before === "reconnecting" || before === "catching_up" : detail.name !== "catching_up")) {
        announce(this.textContent ?? "");
      }
    });
    this.#show();
  }

  /** Somebody has signed in again. */
  again() {
    if (this.#state.name === "signed_out") this.#stream?.again?.();
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
  if (error instanceof ApiError && error.status === 401) return signedOut();
  if (error instanceof DOMException && error.name === "AbortError") return undefined;
  return toast(words(error), { error: true });
}

/** The bar's connection state. @returns {ConnectionState} */
export const connection = () => /** @type {any} */ (document.querySelector("connection-state"));

/** @type {{actor: string, user: any, scopes: string[], workspace: string} | null} */
let me = null;

/**
 * Make the bar, and find out who calls. Whom the server does not know is led to where people sign in, and back.
 * @returns {Promise<{actor: string, user: any, scopes: string[]}>} who calls; pending until the server lets them in
 */
export async function start() {
  translate();
  document.title = `${t(`nav.${document.body.dataset.page}`)} · TaskHub`;
  const tools = /** @type {HTMLElement} */ (document.querySelector(".shell-tools"));
  tools.append(new ConnectionState(), languages());
  document.body.append(live, toasts);
  for (;;) {
    try {
      const found = await get("/api/v1/me");
      me = found;
      if (asksWho) afterFrame(() => showAccount(tools).catch(tell));
      return found;
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 401)) await unreachable(error);
      else {
        location.replace(signInAddress());
        await new Promise(() => {}); // the next page is on its way
      }
    }
  }
}

/** The menu of who is signed in, with the forms that are wanted when the session is over. @param {HTMLElement} tools */
async function showAccount(tools) {
  const { account } = await import("./account.js");
  if (me) tools.append(account(me, { tell, toast, announce, leaving: (really) => (leaving = really) }));
}

export function languages() {
  const select = h(
    "select", { "aria-label": t("language"), onchange: () => choose(select.value) },
    Object.entries(LANGUAGES).map(([tag, name]) => h("option", { value: tag, lang: tag, selected: tag === language }, name)),
  );
  return select;
}

let asking = false;
let leaving = false;

/**
 * The session is over. What is on the page stays, with all that was being written: it asks who sits here over it, and
 * goes on as before.
 */
async function signedOut() {
  if (asking || leaving || !me) return;
  asking = true;
  try {
    const found = await get("/api/v1/me");
    asking = false;
    return goOn(found.user?.id); // somebody has signed in again, in another tab
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 401)) {
      asking = false;
      return tell(error);
    }
  }
  const [{ openDialog }, { providerLink, signInForm }] = await Promise.all([import("./ask.js"), import("./sign-in.js")]);
  const done = (/** @type {string} */ user) => {
    asking = false;
    dialog.close();
    goOn(user);
  };
  const dialog = openDialog(t("session.over"), h(
    "div", { class: "body" },
    h("p", null, t("session.over_about")),
    signInForm({ name: me.user?.name ?? "", workspace: me.workspace, done: ({ user }) => done(user) }),
    providerLink({ next: "/", workspace: me.workspace, elsewhere: true }),
    h("p", { class: "quiet small" }, t("session.over_link"), " ", h("a", { href: signInAddress() }, t("session.over_leave"))),
  ));
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  onSignIn(done);
  return undefined;
}

/** Go on after a session was over. @param {string | undefined} user who is signed in now */
function goOn(user) {
  onSignIn(heard);
  // What is shown belongs to somebody else.
  if (user !== me?.user?.id) return location.reload();
  announce(t("session.back"));
  return connection().again();
}

/** Another tab has signed somebody in: the session that this page came with is over. @param {string} user */
function heard(user) {
  if (me && user !== me.user?.id) location.reload();
}
onSignIn(heard);

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
      h("span", null, words(error)),
      h("button", { type: "button", class: "button", onclick: again }, t("again")),
    );
    document.querySelector("main")?.prepend(notice);
    const timer = setTimeout(again, 5000);
  });
}
