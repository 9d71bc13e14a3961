// What the feed's address says, with the stream's own names: filters, and where to begin.

import { h, icon } from "./dom.js";
import { t } from "./i18n.js";
import { choices } from "./refs.js";
import * as address from "./address.js";

/** The parameters of the stream by which events are chosen, as `/events/stream` names them. */
export const NAMES = /** @type {const} */ ([
  "type", "ticket", "subject", "actor", "origin", "changed",
  "status", "phase", "assignee", "requestor", "account", "category", "channel", "priority", "label",
]);
const PEOPLE = "users";
const KINDS = { status: "statuses", assignee: PEOPLE, requestor: PEOPLE, account: "accounts", category: "categories", channel: "request-channels" };
const VERBS = [
  "created", "updated", "status_changed", "assigned", "commented", "claimed", "released", "lease_expired", "lease_renewed",
  "progress", "linked", "unlinked", "unblocked", "deleted", "restored",
];
const KNOWN = {
  type: ["ticket.*", "task_updated", ...VERBS.map((verb) => `ticket.${verb}`), "reference.changed", "batch.finished"],
  origin: ["mcp_tool", "rest_api", "dashboard", "system", "import"],
  changed: ["status", "assignee", "priority", "due", "labels", "summary", "description", "progress", "blocked"],
  actor: ["me", "!me", "agent:*", "user:*"],
  phase: ["todo", "active", "waiting", "review", "done", "cancelled"],
  priority: ["urgent", "high", "medium", "low", "none"],
};
const STARTS = ["15m", "1h", "1d", "7d", "earliest"];

/** What the address asks for; names that the stream does not know are left in, for the server to say so. */
export function asked() {
  const parameters = new URLSearchParams(location.search);
  const since = parameters.get("since");
  parameters.delete("since");
  return { filter: parameters, since };
}

/** @param {URLSearchParams} filter @param {string | null} [since] the address of a stream of that */
export function streamPath(filter, since) {
  const parts = [...filter].map(([name, value]) => `${encodeURIComponent(name)}=${readable(value)}`);
  if (since) parts.push(`since=${readable(since)}`);
  return parts.length ? `/events/stream?${parts.join("&")}` : "/events/stream";
}

/** @param {string} value */
const readable = (value) => encodeURIComponent(value).replaceAll("%2C", ",").replaceAll("%3A", ":").replaceAll("%40", "@");

/**
 * A time as it is written here, without a zone, is this zone's.
 * @param {string} text
 */
function startOf(text) {
  const time = /^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d)?)?$/.test(text) ? new Date(text.length > 10 ? text.replace(" ", "T") : `${text}T00:00`) : null;
  return time && !Number.isNaN(time.getTime()) ? time.toISOString() : text;
}

/** The controls, and what is chosen. @returns {HTMLElement} */
export function filterBar() {
  const name = h("select", { id: "filter-name", "aria-label": t("feed.filter_name"), onchange: suggest }, NAMES.map((each) => h("option", { value: each }, each)));
  const list = h("datalist", { id: "filter-values" });
  const value = h("input", { id: "filter-value", list: list.id, autocomplete: "off", spellcheck: "false", required: true, "aria-label": t("feed.filter_value"), placeholder: t("feed.filter_hint"), "aria-keyshortcuts": "/" });
  const since = h("input", { id: "since", list: "starts", autocomplete: "off", spellcheck: "false", "aria-label": t("feed.since"), placeholder: t("feed.since_hint") });
  const chips = h("div", { class: "chips" });
  async function suggest() {
    const kind = KINDS[name.value];
    const found = kind ? (await choices(kind).catch(() => [])).map((entry) => entry.id) : KNOWN[name.value] ?? [];
    list.replaceChildren(...found.map((/** @type {string} */ each) => h("option", { value: each })));
  }
  const show = () => {
    const now = asked();
    since.value = now.since ?? "";
    chips.replaceChildren(...[...now.filter].map(([each, text]) => h(
      "button", { type: "button", class: "button chip", "aria-label": t("filter.remove", { words: `${each}=${text}` }), onclick: () => (remove(each, text), value.focus()) },
      h("code", null, `${each}=${text}`), icon("close"),
    )));
  };
  const add = (/** @type {Event} */ event) => {
    event.preventDefault();
    // The same name again: one of its values is enough, as everywhere.
    const before = asked().filter.get(name.value);
    address.write({ [name.value]: [before, value.value.trim()].filter(Boolean).join(",") });
    value.value = "";
  };
  const go = (/** @type {Event} */ event) => {
    event.preventDefault();
    address.write({ since: startOf(since.value.trim()) || null });
  };
  addEventListener("address", show);
  addEventListener("popstate", show);
  show();
  suggest();
  return h(
    "div", { class: "feed-filters", role: "search" },
    h("form", { onsubmit: add }, name, value, list, h("button", { class: "button" }, t("feed.filter_add"))),
    h("form", { onsubmit: go }, since, h("datalist", { id: "starts" }, STARTS.map((each) => h("option", { value: each }))), h("button", { class: "button" }, t("feed.go"))),
    chips,
  );
}

/** @param {string} name @param {string} value */
function remove(name, value) {
  const left = asked().filter.getAll(name).filter((each) => each !== value);
  address.write({ [name]: left.join(",") || null });
}

/**
 * What the server found wrong with what is asked for, with a way on.
 * @param {import("./api.js").ApiError} error
 */
export function problemNotice(error) {
  const faults = (error.problem.errors ?? []).map((/** @type {any} */ fault) => {
    // The log calls it `after`.
    const name = fault.parameter === "after" ? "since" : fault.parameter;
    const better = fault.did_you_mean;
    const known = NAMES.includes(name) || name === "since";
    const repair = () => {
      if (known) address.write({ [name]: better });
      else address.write({ [name]: null, [better]: new URLSearchParams(location.search).get(name) });
    };
    return h(
      "li", null, h("code", null, name), ` ${fault.reason} `,
      fault.allowed && !fault.reason.includes(fault.allowed[0]) && `${t("feed.allowed", { values: fault.allowed.join(", ") })} `,
      better && h("button", { type: "button", class: "button", onclick: repair }, t("feed.use", { better })), " ",
      h("button", { type: "button", class: "button", onclick: () => address.write({ [name]: null }) }, t("feed.leave_out", { name })),
    );
  });
  return h(
    "div", { class: "notice error", role: "alert" },
    faults.length ? h("ul", { class: "faults" }, faults) : h("span", null, error.words),
    error.status === 410 && h("button", { type: "button", class: "button", onclick: () => address.write({ since: "earliest" }) }, t("feed.oldest")),
  );
}
