// Whoever is signed in: the menu with their name, their password, and the browsers where they are signed in.

import { ApiError, call, get, words } from "./api.js";
import { confirmed, openDialog } from "./ask.js";
import { h } from "./dom.js";
import { ago, fullTime, knows, t } from "./i18n.js";
import { openMenu } from "./menu.js";
import { passwordForm } from "./sign-in.js";

// As browsers name themselves; each also names those after it.
const BROWSERS = [["Edg", "Edge"], ["OPR/", "Opera"], ["Firefox/", "Firefox"], ["Chrome/", "Chrome"], ["Safari/", "Safari"]];
const SYSTEMS = [["Android", "Android"], ["iPhone", "iOS"], ["iPad", "iPadOS"], ["Windows", "Windows"], ["Mac OS", "macOS"], ["CrOS", "ChromeOS"], ["Linux", "Linux"]];

/**
 * @typedef {{tell: (error: unknown) => void, toast: (words: string) => void, announce: (words: string) => void,
 *   leaving: (really: boolean) => void}} Ways `leaving`: that the session is about to end is no surprise
 */

/**
 * The menu of who is signed in.
 * @param {{actor: string, user: any}} found @param {Ways} ways
 */
export function account({ actor, user }, ways) {
  const name = user?.name ?? actor;
  const end = async (/** @type {string} */ path) => {
    ways.leaving(true);
    try {
      await call("DELETE", path);
    } catch (error) {
      // Whose session is over is out already.
      if (!(error instanceof ApiError && error.status === 401)) {
        ways.leaving(false);
        return ways.tell(error);
      }
    }
    return location.assign("/login");
  };
  const everywhere = async () => (await confirmed(t("session.everywhere"), t("session.everywhere_about"), t("session.everywhere"))) && end("/api/v1/sessions");
  const button = h("button", {
    type: "button", class: "button plain account", "aria-haspopup": "menu", "aria-expanded": "false", title: t("session.signed_in", { name }),
    onclick: () => openMenu(button, [
      { title: t("session.signed_in", { name }) },
      { label: t("session.change_password"), run: () => changePassword(name, ways).catch(ways.tell) },
      { label: t("session.places"), run: () => showSessions(ways).catch(ways.tell) },
      "line",
      { label: t("session.sign_out"), run: () => end("/api/v1/session") },
      { label: t("session.everywhere"), run: everywhere },
    ], { label: t("session.account") }),
  }, name);
  return button;
}

/** @param {string} name @param {Ways} ways */
async function changePassword(name, { toast }) {
  const { has_password: known } = await get("/api/v1/session");
  const dialog = openDialog(t("session.change_password_title"), h("div", { class: "body" }, passwordForm({
    name, current: known,
    done: () => (dialog.close(), toast(t("session.password_changed"))),
    later: () => dialog.close(),
  })));
}

/** Where one is signed in, each with a way to end it. @param {Ways} ways */
async function showSessions({ announce }) {
  const { items } = await get("/api/v1/sessions");
  const trouble = h("p", { class: "notice error", role: "alert", hidden: true });
  const done = h("button", { type: "button", class: "button main", autofocus: true, onclick: () => dialog.close() }, t("close"));
  const end = async (/** @type {any} */ session, /** @type {any} */ event) => {
    const button = event.currentTarget;
    button.disabled = true;
    trouble.hidden = true;
    try {
      await call("DELETE", `/api/v1/sessions/${encodeURIComponent(session.id)}`);
    } catch (error) {
      // Another one may have ended it.
      if (!(error instanceof ApiError && error.status === 404)) {
        trouble.replaceChildren(words(error));
        trouble.hidden = false;
        button.disabled = false;
        return;
      }
    }
    const row = button.closest("li");
    const next = row.nextElementSibling?.querySelector("button") ?? row.previousElementSibling?.querySelector("button") ?? done;
    row.remove();
    next.focus();
    announce(t("session.ended", { place: placeOf(session.user_agent) }));
  };
  const dialog = openDialog(t("session.places_title"), h(
    "div", { class: "body" },
    h("ul", { class: "sessions", role: "list" }, items.map((/** @type {any} */ session) => h(
      "li", null,
      h("div", null,
        h("p", null, h("b", null, placeOf(session.user_agent)), session.current && [" ", h("span", { class: "tag" }, t("session.this_one"))]),
        h("p", { class: "quiet small" }, told(session))),
      !session.current && h("button", {
        type: "button", class: "button", "aria-label": t("session.end_label", { place: placeOf(session.user_agent) }),
        onclick: (/** @type {Event} */ event) => end(session, event),
      }, t("session.end")),
    ))),
    trouble, h("div", { class: "actions" }, done),
  ));
}

/** How and when it began, and when it was used last. @param {any} session */
function told({ by, created_at: began, last_used_at: used, current }) {
  const way = `session.by_${by}`;
  return [
    knows(way) && `${t(way)} · `, h("time", { datetime: began }, t("session.since", { time: fullTime(began) })),
    !current && [" · ", h("time", { datetime: used, title: fullTime(used) }, t("session.used", { time: ago(used) }))],
  ];
}

/** What a browser is and runs on, as far as it tells. @param {string} agent */
function placeOf(agent) {
  const found = (/** @type {string[][]} */ known) => known.find(([sign]) => agent.includes(sign))?.[1];
  const [browser, system] = [found(BROWSERS), found(SYSTEMS)];
  if (browser && system) return t("session.browser_on", { browser, system });
  return browser ?? (agent.split(/[\s/]/)[0] || t("session.unknown_browser"));
}
