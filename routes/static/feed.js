// The feed's page: events as they come, newest first, and the log behind them.

import * as address from "./address.js";
import { ApiError } from "./api.js";
import { h, isTyping } from "./dom.js";
import { asked, filterBar, problemNotice, streamPath } from "./feed-filter.js";
import { line } from "./feed-line.js";
import { FeedLog } from "./feed-log.js";
import { commands } from "./help.js";
import { ago, t } from "./i18n.js";
import { forget } from "./refs.js";
import { asksWho, headers } from "./session.js";
import { announce, connection, start, tell, toast } from "./shell.js";
import { openStream } from "./stream.js";

const SPOKEN_EVERY_MS = 10_000;
const BEGIN_WAIT_MS = 1500;
/** @type {[string[], string][]} */
const KEYS = [[["j", "k"], "feed.keys_rows"], [["Enter"], "feed.keys_raw"], [["p"], "feed.pause"], [["/"], "feed.filter_add"]];

await start();
const main = /** @type {HTMLElement} */ (document.querySelector("main"));
const list = h("ol", { class: "feed", "aria-label": t("feed.title"), reversed: true });
const problem = h("div", { class: "problem" });
const empty = h(
  "div", { class: "empty", hidden: true }, h("h2", null, t("feed.empty_title")), h("p", { class: "quiet" }, t("feed.empty_about")),
  h("pre", { class: "command", tabindex: 0 }, commands()[1]),
);
const button = (/** @type {string} */ words, /** @type {() => void} */ onclick, /** @type {any} */ more = {}) => h("button", { type: "button", class: "button", onclick, ...more }, words);
const pause = button(t("feed.pause"), () => (log.paused ? log.resume() : log.pause()), { "aria-keyshortcuts": "p", title: `${t("feed.pause")} (p)`, "aria-pressed": "false" });
const fresh = button("", () => toNow(), { class: "button main fresh", hidden: true });
const newer = button(t("feed.newer"), () => log.newer().catch(tell));
const now = button(t("feed.now"), () => toNow());
const past = h("div", { class: "notice past", hidden: true }, h("span"), newer, now);
const older = button(t("feed.older"), () => log.older().catch(tell));
const end = h("p", { class: "quiet end" });
main.append(
  h("h1", { class: "hidden-text" }, t("feed.title")),
  h("div", { class: "feed-bar" }, filterBar(), h("div", { class: "row" }, pause, button(t("feed.curl"), copyCommand), fresh)),
  problem, past, list, empty, h("div", { class: "feed-foot" }, older, end, h("p", { class: "feed-keys quiet small" }, KEYS.map(([keys, words]) => (
    h("span", null, keys.map((key) => [h("kbd", null, key), " "]), t(words))
  )))),
);

let log = new FeedLog(new URLSearchParams());
/** @type {import("./stream.js").TaskHubStream | null} */
let stream = null;
let failed = false;
let scheduled = 0;
/** @type {Map<string, HTMLElement>} */
const lines = new Map();

/** Follow what the address asks for. */
function follow() {
  stream?.close();
  const { filter } = asked();
  // Of all tabs with this filter only one has a connection. The board's stream is none to share: of what happens to a
  // ticket within a moment it has only the last.
  const opened = openStream({ url: `${streamPath(filter)}${[...filter].length ? "&" : "?"}batch=100`, headers: headers() });
  stream = opened;
  connection().follow(opened);
  let begun = false;
  log.paused = false;
  opened.addEventListener("begin", (/** @type {any} */ { detail: { reason } }) => {
    if (begun && reason === "joined") return;
    if (begun && reason !== "opened") {
      // Events are missing: what follows does not adjoin what is shown.
      toast(t("feed.reset", { reason }), { error: true });
      connection().resynced();
    }
    begun = true;
    read();
  });
  opened.addEventListener("events", (/** @type {any} */ { detail: { events } }) => {
    if (events.some((/** @type {any} */ event) => event.type === "reference.changed")) forget();
    log.hear(events);
    speak(events.length);
  });
  opened.addEventListener("state", (/** @type {any} */ { detail }) => {
    if (detail.name !== "refused" && detail.name !== "signed_out") return;
    begun = true;
    // Why, the log says in more words.
    read();
  });
  // Without a stream there is still the log.
  setTimeout(() => begun || stream !== opened || read(), BEGIN_WAIT_MS);
}

/** Read the log, from where the address says. */
function read() {
  const { filter, since } = asked();
  const { paused } = log;
  log.close();
  const mine = new FeedLog(filter);
  log = mine;
  log.paused = paused;
  mine.addEventListener("change", () => mine === log && schedule());
  failed = false;
  problem.replaceChildren();
  (since ? mine.from(since) : mine.latest()).catch((error) => mine === log && refused(error));
}

/** @param {unknown} error */
function refused(error) {
  if (error instanceof DOMException && error.name === "AbortError") return;
  if (error instanceof ApiError && error.status === 401) tell(error);
  failed = true;
  problem.replaceChildren(problemNotice(error instanceof ApiError ? error : new ApiError(0, { detail: String(error) })));
  schedule();
}

function schedule() {
  scheduled ||= requestAnimationFrame(() => {
    scheduled = 0;
    show();
  });
}

function show() {
  const marked = asked().since;
  const wanted = new Set(log.events.map((event) => event.id));
  for (const [id, element] of lines) {
    if (wanted.has(id)) continue;
    element.remove();
    lines.delete(id);
  }
  let place = list.lastElementChild;
  // Oldest first from below: what is there already stays where it is, with its focus.
  for (const event of log.events) {
    let element = lines.get(event.id);
    if (element && element === place) {
      place = element.previousElementSibling;
      continue;
    }
    if (!element) {
      element = line(event, { marked: event.id === marked });
      lines.set(event.id, element);
    }
    if (place) place.after(element);
    else list.prepend(element);
  }
  const nothing = log.events.length === 0;
  list.hidden = nothing;
  empty.hidden = !nothing || log.busy || failed || log.past;
  pause.setAttribute("aria-pressed", String(log.paused));
  pause.textContent = t(log.paused ? "feed.resume" : "feed.pause");
  fresh.hidden = log.live || log.waited === 0;
  fresh.textContent = t("feed.fresh", { n: log.waited });
  past.hidden = !log.past || log.busy || failed;
  past.firstElementChild.textContent = log.events.length ? t("feed.past", { time: ago(log.events[log.events.length - 1].time) }) : t("feed.past_empty");
  older.hidden = log.complete || failed;
  older.disabled = log.busy;
  newer.disabled = log.busy;
  end.textContent = log.busy ? t("loading") : nothing ? "" : log.complete ? t("feed.complete") : t("feed.kept", { n: log.events.length });
  list.querySelector(".marked:not(.seen)")?.scrollIntoView({ block: "center" });
  list.querySelector(".marked")?.classList.add("seen");
}

/** Show what waits; from the past, go to the present. */
function toNow() {
  if (!log.past) log.resume();
  else if (asked().since) address.write({ since: null });
  else {
    log.paused = false;
    read();
  }
  scrollTo({ top: 0 });
}

async function copyCommand() {
  const { filter, since } = asked();
  // A session counts in a browser alone.
  const key = asksWho ? ' -H "x-api-key: $TASKHUB_API_KEY"' : "";
  const extra = Object.entries(headers()).map(([name, value]) => ` -H '${name}: ${value}'`);
  const command = `curl -N '${location.origin}${streamPath(filter, since).replaceAll("'", "%27")}'${key}${extra.join("")}`;
  try {
    await navigator.clipboard.writeText(command);
    toast(t("feed.copied"));
  } catch {
    // Not every page may write to the clipboard: over plain HTTP the person copies what is shown.
    const shown = h("pre", { class: "command", tabindex: 0 }, command);
    problem.replaceChildren(shown);
    shown.focus();
    getSelection()?.selectAllChildren(shown);
  }
}

let spoken = 0;
let unspoken = 0;

/** @param {number} count */
function speak(count) {
  unspoken += count;
  if (Date.now() - spoken < SPOKEN_EVERY_MS) return;
  announce(t("feed.came", { n: unspoken }));
  [spoken, unspoken] = [Date.now(), 0];
}

addEventListener("keydown", (event) => {
  if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const step = { j: 1, k: -1 }[event.key];
  if (step) {
    const row = document.activeElement?.closest(".feed > li");
    const next = row ? (step > 0 ? row.nextElementSibling : row.previousElementSibling) : list.firstElementChild;
    next?.querySelector("button").focus();
  } else if (event.key === "p") pause.click();
  else if (event.key === "/") document.getElementById("filter-value")?.focus();
  else return;
  event.preventDefault();
});

addEventListener("address", follow);
addEventListener("popstate", follow);
follow();
document.body.dataset.started = "yes";

