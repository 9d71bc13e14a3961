// What the operator page shows of instances and streams.

import { h } from "./dom.js";
import { language, t } from "./i18n.js";

const numbers = new Intl.NumberFormat(language, { maximumFractionDigits: 2 });

/** @param {number} value */
export const number = (value) => numbers.format(value);

/** @param {number | null} value */
export const milliseconds = (value) => (value === null ? "–" : `${number(value)} ms`);

/** @param {number} value */
export function bytes(value) {
  if (value < 1024) return `${value} B`;
  return value < 1024 ** 2 ? `${number(Math.round(value / 102.4) / 10)} KiB` : `${number(Math.round(value / 104_857.6) / 10)} MiB`;
}

/** @param {number} seconds */
export function duration(seconds) {
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor(whole / 60) % 60} min`;
}

/** @param {Record<string, string[]>} filter */
export const filterWords = (filter) => Object.entries(filter).map(([name, values]) => `${name}=${values.join(",")}`).join("&");

const good = (/** @type {string} */ state) => state === "up" || state === "local";

/** A state, marked by its shape as well. @param {string} state @param {string} [why] */
const stateTag = (state, why) => h("span", { class: `health ${good(state) ? "good" : "bad"}` }, knownState(state), why && ` · ${why}`);

const STATES = new Set(["up", "local", "connecting", "down", "live", "replaying", "batching"]);
const knownState = (/** @type {string} */ state) => (STATES.has(state) ? t(`operator.state.${state}`) : state);

/** @param {any[]} instances */
export function instanceRows(instances) {
  return instances.map((each) => h(
    "tr", null,
    h("th", { scope: "row" }, h("span", { class: "mono" }, each.instance), each.draining && h("span", { class: "tag" }, t("operator.draining"))),
    h("td", null, each.version),
    h("td", null, stateTag(each.database)),
    h("td", null, stateTag(each.relay.state, each.relay.trouble), each.relay.state !== "local" && each.relay.announced !== null && h("div", { class: "quiet small" }, t("operator.relay", each.relay))),
    h("td", { class: "number" }, number(each.connected_clients)),
    h("td", { class: "number" }, number(each.events_per_s)),
    h("td", { class: "number" }, number(each.deliveries_per_s)),
    h("td", { class: "number" }, `${milliseconds(each.latency_p50_ms)} / ${milliseconds(each.latency_p99_ms)}`),
    h("td", { class: "number" }, bytes(each.buffered_bytes)),
    h("td", null, each.channels.map((/** @type {any} */ channel) => h(
      "div", null, h("span", { class: "mono" }, `${channel.workspace} ${channel.head}`), " ",
      h("span", { class: "quiet small" }, t("operator.channel", channel)),
      channel.troubles.map((/** @type {string} */ trouble) => h("div", { class: "health bad" }, trouble)),
    ))),
  ));
}

/** The table of streams: rows stay where they are, with the focus, while their figures change. */
export class StreamTable {
  /** @type {Map<string, HTMLElement>} */ #rows = new Map();

  /** @param {(stream: any) => void} end say goodbye to it @param {(stream: any) => void} explain */
  constructor(end, explain) {
    this.end = end;
    this.explain = explain;
    this.body = h("tbody");
    const columns = ["stream", "principal", "filter", "state", "lag", "buffered", "sent", "age", "written"];
    this.element = h(
      "table", { class: "streams" }, h("caption", { class: "hidden-text" }, t("operator.streams")),
      h("thead", null, h("tr", null, columns.map((name) => h("th", { scope: "col", class: ["lag", "buffered", "sent", "age", "written"].includes(name) && "number" }, t(`operator.${name}`))), h("th", { scope: "col" }, h("span", { class: "hidden-text" }, t("operator.actions"))))),
      this.body,
    );
  }

  /** @param {any[]} instances */
  show(instances) {
    const streams = instances.flatMap((each) => each.streams.map((/** @type {any} */ stream) => ({ ...stream, instance: each.instance })));
    const there = new Set(streams.map((stream) => stream.id));
    for (const [id, row] of this.#rows) {
      if (there.has(id)) continue;
      row.remove();
      this.#rows.delete(id);
    }
    for (const stream of streams) {
      let row = this.#rows.get(stream.id);
      if (!row) {
        row = this.#row(stream);
        this.#rows.set(stream.id, row);
        this.body.append(row);
      }
      for (const [name, words] of Object.entries(figures(stream))) {
        const cell = row.querySelector(`[data-figure="${name}"]`);
        if (cell && cell.textContent !== words) cell.textContent = words;
      }
      row.classList.toggle("behind", stream.lag_ms > 0);
    }
  }

  /** @param {any} stream */
  #row(stream) {
    const clauses = Object.entries(stream.filter).map(([name, values]) => h("code", null, `${name}=${values.join(",")}`));
    const cell = (/** @type {string} */ name) => h("td", { class: "number", "data-figure": name, "data-label": t(`operator.${name}`) });
    return h(
      "tr", { "data-id": stream.id },
      h("th", { scope: "row" }, h("span", { class: "mono" }, stream.id), h("div", { class: "quiet small" }, `${stream.format} · ${stream.instance}`)),
      h("td", null, stream.principal, h("div", { class: "quiet small" }, stream.address)),
      h("td", null, clauses.length ? h("div", { class: "clauses" }, clauses) : h("span", { class: "quiet" }, t("operator.all"))),
      h("td", { "data-figure": "state" }), ["lag", "buffered", "sent", "age", "written"].map(cell),
      h("td", { class: "row-actions" },
        h("button", { type: "button", class: "button", "aria-label": t("operator.explain_of", { id: stream.id }), onclick: () => this.explain(stream) }, t("operator.explain")),
        h("button", { type: "button", class: "button danger", "aria-label": t("operator.end_of", { id: stream.id }), onclick: () => this.end(stream) }, t("operator.end"))),
    );
  }
}

/** @param {any} stream @returns {Record<string, string>} */
function figures(stream) {
  return {
    state: knownState(stream.state),
    lag: stream.lag_ms ? `${number(stream.lag_events)} · ${milliseconds(stream.lag_ms)}` : number(stream.lag_events),
    buffered: bytes(stream.buffered_bytes),
    sent: `${number(stream.events_sent)} · ${bytes(stream.bytes_sent)}`,
    age: duration(stream.connected_s),
    written: t("operator.ago", { time: duration(stream.last_write_s) }),
  };
}
