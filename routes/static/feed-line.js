// One event, in words.

import { nameOf } from "./card.js";
import { h, icon } from "./dom.js";
import { FIELDS, labelOf, wordsOf } from "./fields.js";
import { fullTime, knows, language, t } from "./i18n.js";

const LONG = 160;
// Told by the sentence, or by the state that the ticket has after it.
const TOLD = new Set(["phase", "lease", "blocked", "progress", "relations", "completion_date"]);
// Stands in a sentence for what is no text.
const HERE = "\uE000";

const clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(language, { month: "short", day: "numeric" });

/** @param {any} event @param {{marked: boolean}} options @returns {HTMLElement} */
export function line(event, { marked }) {
  const id = `raw-${event.id}`;
  const raw = h("pre", { id, tabindex: 0, hidden: true, "aria-label": t("feed.raw") });
  const button = h("button", {
    type: "button", class: "button plain icon-only expand", "aria-expanded": "false", "aria-controls": id,
    "aria-label": t("feed.expand", { id: event.id }), title: event.id,
    onclick: () => {
      raw.hidden = !raw.hidden;
      raw.textContent = raw.hidden ? "" : JSON.stringify(event, null, 2);
      button.setAttribute("aria-expanded", String(!raw.hidden));
    },
  }, "›");
  const actor = nameOf(event.actor);
  const words = h("span", { class: "what" }, sentence(event, {}));
  inWords(event).then((known) => words.replaceChildren(...sentence(event, known)), () => {});
  const ticket = event.data?.ticket;
  const time = new Date(event.time);
  const today = time.toDateString() === new Date().toDateString();
  return h(
    "li", { "data-id": event.id, class: marked && "marked" },
    button,
    h("time", { datetime: event.time, title: fullTime(time) }, !today && `${day.format(time)} `, clock.format(time)),
    h("span", { class: "who", title: event.actor }, icon(event.actor.startsWith("user:") ? "person" : "agent"), h("b", null, actor)),
    h("span", { class: "told" }, words, " ",
      ticket && h("span", { class: "quiet about" }, ticket.summary), " ",
      event.data?.comment && h("q", null, shortened(event.data.comment)),
      event.match && event.match !== "update" && h("span", { class: `tag ${event.match}` }, t(`feed.match.${event.match}`))),
    h("span", { class: "quiet small origin" }, knows(`origin.${event.origin}`) ? t(`origin.${event.origin}`) : event.origin),
    raw,
  );
}

/** The sentence, with the ticket as a link. @param {any} event @param {Record<string, string>} known words for what changed */
function sentence(event, known) {
  const { type, subject, data } = event;
  const ticket = data?.ticket;
  const subjectOf = ticket ? h("a", { href: `/?ticket=${encodeURIComponent(subject)}` }, subject) : h("b", null, subject ?? "");
  const changes = data?.changes ?? {};
  const key = `feed.${type}`;
  if (!knows(key)) {
    const told = shortened(JSON.stringify(data) ?? "");
    return [h("code", null, type), " ", subject ? subjectOf : "", " ", told !== "{}" && h("span", { class: "quiet mono" }, told)].filter(Boolean);
  }
  const words = t(key, {
    key: HERE,
    before: known["status:0"] ?? changes.status?.[0] ?? "",
    after: known["status:1"] ?? changes.status?.[1] ?? ticket?.status?.name ?? "",
    who: ticket?.assignee?.name ?? "",
    percent: ticket?.progress?.percent ?? 0,
    note: ticket?.progress?.note ?? "",
    kind: data?.kind && data.kind !== "note" ? (knows(`comment.${data.kind}`) ? t(`comment.${data.kind}`) : data.kind) : "",
    relation: data?.relation ? (knows(`relation.${data.relation.relation}`) ? t(`relation.${data.relation.relation}`) : data.relation.relation) : "",
    other: data?.relation?.ticket ?? "",
    name: data?.name ?? data?.id ?? subject ?? "",
    action: data?.action ?? "",
  });
  const [before, after] = words.split(HERE);
  const said = type === "ticket.status_changed" ? ["status"] : type === "ticket.assigned" ? ["assignee"] : [];
  const rest = Object.keys(changes).filter((name) => !TOLD.has(name) && !said.includes(name)).map((name) => change(name, changes[name], known));
  return [before, after === undefined ? "" : subjectOf, after ?? "", ...rest];
}

/** @param {string} name @param {[any, any]} values @param {Record<string, string>} known */
function change(name, [before, after], known) {
  const kind = FIELDS.find((field) => field.event === name)?.kind;
  if (kind === "long") return h("span", { class: "change" }, labelOf(name));
  const words = (/** @type {any} */ value, /** @type {number} */ i) => shortened(known[`${name}:${i}`] ?? (value === null ? t("none") : typeof value === "string" ? value : JSON.stringify(value)));
  return h("span", { class: "change" }, `${labelOf(name)} `, h("del", null, words(before, 0)), " → ", h("ins", null, words(after, 1)));
}

/** What the ids in a change stand for, as `field:0` and `field:1`. @param {any} event @returns {Promise<Record<string, string>>} */
async function inWords(event) {
  const found = /** @type {Record<string, string>} */ ({});
  for (const [name, values] of Object.entries(event.data?.ticket ? event.data.changes ?? {} : {})) {
    const kind = FIELDS.find((field) => field.event === name)?.kind;
    if (kind === undefined || kind === "long") continue;
    for (const [i, value] of values.entries()) found[`${name}:${i}`] = await wordsOf(value, kind);
  }
  return found;
}

/** @param {string} text */
const shortened = (text) => (text.length > LONG ? `${text.slice(0, LONG)}…` : text);
