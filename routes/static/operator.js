// The operator page: what the event engine does, on all instances, as `/events/debug` tells every other client.

import { ApiError, call, get } from "./api.js";
import { confirmed, field } from "./ask.js";
import { Chart } from "./chart.js";
import { h } from "./dom.js";
import { commands } from "./help.js";
import { ago, clockTime, knows, language, t } from "./i18n.js";
import { StreamTable, bytes, duration, filterWords, instanceRows, milliseconds, number } from "./operator-tables.js";
import { announce, connection, start, tell, toast } from "./shell.js";

const EVERY_MS = 2000;
const POINTS = 150; // five minutes
const STREAMS = 200;

await start();

/** Tells how the asking goes, as a stream does of itself: this page listens to none. */
class Asking extends EventTarget {
  /** @type {import("./stream.js").StreamState} */ state = { name: "connecting" };
  #since = Date.now();

  /** @param {"live" | "reconnecting" | "signed_out"} name */
  enter(name) {
    if (name === "live") this.#since = Date.now();
    else if (name === this.state.name && name === "signed_out") return;
    this.state = { name, at: Date.now() + EVERY_MS, since: this.#since };
    this.dispatchEvent(new CustomEvent("state", { detail: this.state }));
  }
}

const state = new Asking();
connection().follow(/** @type {any} */ (state));
const main = /** @type {HTMLElement} */ (document.querySelector("main"));

const charts = {
  events: new Chart(t("operator.events_per_s"), { points: POINTS, format: number }),
  deliveries: new Chart(t("operator.deliveries_per_s"), { points: POINTS, format: number }),
  p50: new Chart(t("operator.p50"), { points: POINTS, format: milliseconds }),
  p99: new Chart(t("operator.p99"), { points: POINTS, format: milliseconds }),
};
const problem = h("div", { class: "problem" });
const partial = h("p", { class: "notice warning", role: "status", hidden: true }, t("operator.partial"));
const totals = h("dl", { class: "totals" });
const instances = h("tbody");
const counters = h("div", { class: "counters" });
const left = h("p", { class: "quiet", hidden: true });
const nobody = h("p", { class: "quiet", hidden: true }, t("operator.nobody"), " ", h("code", null, commands()[0]));
const read = h("p", { class: "quiet small read" });
const trip = h("button", { type: "button", class: "button", onclick: roundTrip }, t("operator.test"));
const tripped = h("output", { class: "tripped" });
const event = h("input", { name: "event", required: true, autocomplete: "off", spellcheck: "false", placeholder: "k7q2m4xa-1042", maxlength: 64 });
const stream = h("input", { name: "stream", required: true, autocomplete: "off", spellcheck: "false", placeholder: "st_9f2c…", list: "stream-ids", maxlength: 64 });
const ids = h("datalist", { id: "stream-ids" });
const verdict = h("div", { class: "verdict", role: "status" });
const streams = new StreamTable(end, (chosen) => {
  stream.value = chosen.id;
  event.focus();
});
const columns = ["instance", "version", "database", "relay_state", "clients", "events_per_s", "deliveries_per_s", "latency", "buffered", "log"];
const numeric = new Set(["clients", "events_per_s", "deliveries_per_s", "latency", "buffered"]);
const scrolled = (/** @type {string} */ label, /** @type {HTMLElement} */ table) => h("div", { class: "scrolled", tabindex: 0, role: "region", "aria-label": label }, table);
const listed = scrolled(t("operator.streams"), streams.element);
const figures = h(
  "div", { class: "figures", hidden: true },
  totals,
  h("dl", { class: "charts" }, Object.values(charts).map((chart) => chart.element)),
  h("section", null, h("h2", null, t("operator.instances")), scrolled(t("operator.instances"), h(
    "table", null, h("thead", null, h("tr", null, columns.map((name) => h("th", { scope: "col", class: numeric.has(name) && "number" }, t(`operator.${name}`))))), instances,
  ))),
  h("section", null, h("h2", null, t("operator.streams")), listed, nobody, left),
  h("div", { class: "halves" },
    h("section", null, h("h2", null, t("operator.test_title")), h("p", { class: "quiet" }, t("operator.test_about")), h("div", { class: "row" }, trip, tripped)),
    h("section", null, h("h2", null, t("operator.explain_title")), h("p", { class: "quiet" }, t("operator.explain_about")),
      h("form", { class: "explain", onsubmit: explain }, field(t("operator.event"), event), field(t("operator.stream"), stream), ids, h("button", { class: "button" }, t("operator.explain"))), verdict)),
  h("section", null, h("h2", null, t("operator.counters")), counters),
);
main.append(h("div", { class: "heading" }, h("h1", null, t("operator.title")), read), problem, partial, figures);

let timer = 0;
let asking = false;

/** Ask, and ask again while somebody looks. */
async function poll() {
  clearTimeout(timer);
  if (asking || document.visibilityState !== "visible") return;
  asking = true;
  try {
    show(await get(`/events/debug?streams=${STREAMS}`));
    problem.replaceChildren();
    state.enter("live");
  } catch (error) {
    failed(error);
    if (error instanceof ApiError && error.status === 403) return; // the same key is not allowed more in a moment
  } finally {
    asking = false;
  }
  timer = setTimeout(poll, EVERY_MS);
}

/** @param {unknown} error */
function failed(error) {
  const status = error instanceof ApiError ? error.status : 0;
  state.enter(status === 401 || status === 403 ? "signed_out" : "reconnecting");
  if (status === 401) tell(error);
  const key = { 401: "operator.unauthenticated", 403: "operator.forbidden" }[status];
  const words = key ? t(key) : error instanceof ApiError ? error.words : String(error);
  if (problem.textContent === words) return;
  problem.replaceChildren(h("p", { class: "notice error", role: "alert" }, words));
}

/** @param {any} found */
function show(found) {
  figures.hidden = false;
  partial.hidden = !found.partial;
  read.textContent = t("operator.read", { time: new Date().toLocaleTimeString(language, { hourCycle: "h23" }) });
  const total = (/** @type {string} */ name, /** @type {string} */ value) => h("div", null, h("dt", { class: "label" }, t(`operator.${name}`)), h("dd", { class: "number" }, value));
  totals.replaceChildren(
    total("clients", number(found.connected_clients)),
    total("events_sent", number(found.events_sent)),
    total("opened", number(found.streams_opened)),
    total("buffered", bytes(found.buffered_bytes)),
    total("lagged", number(found.lagged)),
    total("last_event", found.last_event_time ? ago(found.last_event_time) : t("operator.none_yet")),
  );
  charts.events.add(found.events_per_s);
  charts.deliveries.add(found.deliveries_per_s);
  charts.p50.add(slowest(found.instances, "latency_p50_ms"));
  charts.p99.add(slowest(found.instances, "latency_p99_ms"));
  instances.replaceChildren(...instanceRows(found.instances));
  streams.show(found.instances);
  offer(found.instances.flatMap((/** @type {any} */ each) => each.streams));
  const out = found.instances.reduce((/** @type {number} */ sum, /** @type {any} */ each) => sum + each.streams_left_out, 0);
  left.hidden = out === 0;
  left.textContent = t("operator.left_out", { n: out });
  listed.hidden = found.connected_clients === 0;
  nobody.hidden = found.connected_clients > 0;
  counters.replaceChildren(
    counted("resets", found.resets, "operator.no_resets"), counted("ends", found.ends, "operator.no_ends"), troubles(found.instances),
  );
}

/** Let the streams be chosen from a list, which stays open while it stays the same. @param {any[]} all */
function offer(all) {
  const known = all.map((each) => each.id).join(" ");
  if (ids.dataset.known === known) return;
  ids.dataset.known = known;
  ids.replaceChildren(...all.map((each) => h("option", { value: each.id }, filterWords(each.filter))));
}

/** @param {any[]} all @param {string} name */
function slowest(all, name) {
  const known = all.map((each) => each[name]).filter((value) => value !== null);
  return known.length ? Math.max(...known) : null;
}

/** @param {string} name @param {Record<string, number>} counts @param {string} none */
function counted(name, counts, none) {
  const rows = Object.entries(counts).sort(([, a], [, b]) => b - a);
  return h("div", null, h("h3", null, t(`operator.${name}`)), rows.length
    ? h("dl", { class: "counts" }, rows.map(([reason, count]) => [h("dt", null, h("code", null, reason), " ", knows(`operator.reason.${reason}`) && h("span", { class: "quiet" }, t(`operator.reason.${reason}`))), h("dd", { class: "number" }, number(count))]))
    : h("p", { class: "quiet" }, t(none)));
}

/** What is wrong just now. @param {any[]} all */
function troubles(all) {
  const found = all.flatMap((each) => [
    each.database === "up" ? null : `${each.instance}: ${t("operator.database")} ${each.database}`,
    each.relay.trouble && `${each.instance}: ${t("operator.relay_state")} ${each.relay.trouble}`,
    ...each.channels.flatMap((/** @type {any} */ channel) => channel.troubles.map((/** @type {string} */ trouble) => `${each.instance}: ${channel.workspace}: ${trouble}`)),
  ]).filter(Boolean);
  return h("div", null, h("h3", null, t("operator.troubles")), found.length
    ? h("ul", null, found.map((words) => h("li", { class: "health bad" }, words)))
    : h("p", { class: "quiet" }, t("operator.no_troubles")));
}

/** @param {any} chosen */
async function end(chosen) {
  const about = t("operator.end_about", { principal: chosen.principal, address: chosen.address, age: duration(chosen.connected_s) });
  if (!(await confirmed(t("operator.end_title", { id: chosen.id }), about, t("operator.end")))) return;
  try {
    await call("DELETE", `/events/debug/streams/${encodeURIComponent(chosen.id)}`);
    toast(t("operator.ended", { id: chosen.id }));
  } catch (error) {
    tell(error);
  }
  poll();
}

async function roundTrip() {
  if (trip.disabled) return;
  trip.disabled = true;
  tripped.textContent = t("loading");
  try {
    const found = await call("POST", "/events/debug/test");
    tripped.textContent = t("operator.tripped", { commit: milliseconds(found.commit_ms), whole: milliseconds(found.round_trip_ms), event: found.event, time: clockTime(Date.now()) });
    event.value ||= found.event;
    announce(tripped.textContent);
  } catch (error) {
    tripped.textContent = "";
    tell(error);
  }
  trip.disabled = false;
}

/** @param {SubmitEvent} submitted */
async function explain(submitted) {
  submitted.preventDefault();
  try {
    const found = await get(`/events/debug/explain?event=${encodeURIComponent(event.value.trim())}&stream=${encodeURIComponent(stream.value.trim())}`);
    verdict.replaceChildren(
      h("p", null, h("b", null, t(`operator.verdict.${found.verdict}`)), " ", h("span", { class: "quiet" }, found.detail), found.match && ` (${found.match})`),
      h("ul", null, found.filter.map((/** @type {any} */ each) => h("li", { class: `health ${each.passes ? "good" : "bad"}` }, h("code", null, `${each.name}=${each.values.join(",")}`), ` ${t(each.passes ? "operator.passes" : "operator.fails")}`))),
    );
  } catch (error) {
    verdict.replaceChildren(h("p", { class: "health bad" }, error instanceof ApiError ? error.message : String(error)));
  }
}

document.addEventListener("visibilitychange", poll);
document.body.dataset.started = "yes";
poll();
