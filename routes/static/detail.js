// What there is to read about a ticket: its fields, what it is tied to, what was said, and what happened.

import { avatar, dueTag, leaseBadge, nameOf, progressBar } from "./card.js";
import { get } from "./api.js";
import { h, icon } from "./dom.js";
import { FIELDS, labelOf, valueOf, wordsOf } from "./fields.js";
import { ago, fullTime, knows, t } from "./i18n.js";

// Shown by controls of their own, or by nothing that is a row.
const ELSEWHERE = new Set(["summary", "description", "status", "priority", "person_in_charge", "response_details", "remarks"]);

/** @param {string} time */
export const when = (time) => h("time", { datetime: time, title: fullTime(time) }, ago(time));

/** The fields that have something to tell. @param {any} ticket */
export async function facts(ticket) {
  const rows = [];
  for (const field of FIELDS) {
    if (ELSEWHERE.has(field.name) || valueOf(ticket, field) === "") continue;
    let value = /** @type {Node | string} */ (ticket[field.name]?.name ?? await wordsOf(ticket[field.name], field.kind));
    if (field.name === "scheduled_completion_date") value = dueTag(ticket.scheduled_completion_date, ticket.phase);
    else if (field.kind === "labels") value = h("span", { class: "row" }, ticket.labels.map((/** @type {string} */ label) => h("span", { class: "tag" }, label)));
    else if (field.name === "parent") value = h("a", { href: `?ticket=${ticket.parent}`, "data-ticket": ticket.parent }, ticket.parent);
    rows.push(h("dt", null, t(`field.${field.name}`)), h("dd", null, value));
  }
  if (ticket.lease) rows.push(h("dt", null, t("field.lease")), h("dd", null, leaseBadge(ticket.lease)));
  if (ticket.progress) {
    const { percent, note } = ticket.progress;
    rows.push(h("dt", null, t("field.progress")), h("dd", null, h("span", { class: "number" }, `${percent} %`), note && ` · ${note}`, progressBar(percent, note)));
  }
  rows.push(h("dt", null, t("field.created_at")), h("dd", null, when(ticket.created_at)));
  rows.push(h("dt", null, t("field.updated_at")), h("dd", null, when(ticket.updated_at)));
  return h("dl", { class: "facts" }, rows);
}

/** Long texts, with the addresses in them as links. @param {any} ticket */
export function texts(ticket) {
  return ["description", "response_details", "remarks"].filter((name) => ticket[name]).map((name) => h(
    "section", { class: "text" }, name !== "description" && h("h3", null, t(`field.${name}`)), h("p", { class: "prose" }, linked(ticket[name])),
  ));
}

/** @param {string} text @returns {(Node | string)[]} */
export function linked(text) {
  return text.split(/(https?:\/\/[^\s<>"'）」、。]+)/).map((part, i) => (i % 2 ? h("a", { href: part, rel: "noopener noreferrer nofollow", target: "_blank" }, part) : part));
}

/** @param {any[]} relations @param {(relation: any) => void} remove */
export function relationList(relations, remove) {
  return h("ul", { class: "ties" }, relations.map((relation) => h(
    "li", null, icon(relation.phase), h("span", { class: "quiet" }, t(`relation.${relation.relation}`)),
    h("a", { href: `?ticket=${relation.ticket}`, "data-ticket": relation.ticket }, h("span", { class: "key" }, relation.ticket), ` ${relation.summary}`),
    h("button", { type: "button", class: "button plain icon-only", "aria-label": t("relation.remove", { key: relation.ticket }), onclick: () => remove(relation) }, icon("close")),
  )));
}

/** @param {any[]} attachments @param {(attachment: any) => void} remove */
export function attachmentList(attachments, remove) {
  return h("ul", { class: "ties" }, attachments.map((attachment) => h(
    "li", null,
    // Only such addresses are stored; what else it might be, the page does not follow.
    /^https?:\/\//i.test(attachment.url)
      ? h("a", { href: attachment.url, rel: "noopener noreferrer nofollow", target: "_blank" }, attachment.file_name)
      : h("span", null, attachment.file_name),
    h("button", { type: "button", class: "button plain icon-only", "aria-label": t("attachment.remove", { name: attachment.file_name }), onclick: () => remove(attachment) }, icon("close")),
  )));
}

/** @param {any[]} comments oldest first */
export function commentList(comments) {
  return h("ol", { class: "comments" }, comments.map(({ author, kind, body, created_at: time }) => h(
    "li", { class: `comment ${kind}` }, avatar(nameOf(author), { agent: !author.startsWith("user:") }),
    h("div", null,
      h("p", { class: "quiet small" }, h("b", null, nameOf(author)), " ", kind !== "note" && h("span", { class: "tag" }, t(`comment.${kind}`)), " ", when(time)),
      h("p", { class: "prose" }, linked(body))),
  )));
}

/** @param {any[]} history newest first */
export async function historyList(history) {
  const rows = await Promise.all(history.map(async (entry) => {
    const changes = await Promise.all(Object.entries(entry.changes).filter(([name]) => name !== "phase").map(async ([name, [before, after]]) => {
      const kind = FIELDS.find((field) => field.event === name)?.kind ?? "text";
      if (kind === "long") return h("span", null, labelOf(name));
      const words = (/** @type {any} */ value) => (value !== null && typeof value === "object" && !Array.isArray(value) ? JSON.stringify(value) : wordsOf(value, kind));
      return h("span", null, `${labelOf(name)} `, h("del", null, await words(before)), " → ", h("ins", null, await words(after)));
    }));
    const key = `event.${entry.type}`;
    return h(
      "li", null,
      h("p", null, h("b", null, nameOf(entry.actor)), ` ${knows(key) ? t(key) : entry.type} `, h("span", { class: "quiet small" }, when(entry.time), ` · ${t(`origin.${entry.origin}`)}`)),
      changes.length > 0 && h("p", { class: "changes small" }, changes),
    );
  }));
  return h("ol", { class: "history" }, rows);
}

/** The events themselves, read when somebody opens this. @param {string} key */
export function rawEvents(key) {
  const list = h("div", { class: "raw" });
  const details = h("details", { ontoggle: read }, h("summary", null, t("detail.raw")), list);
  async function read() {
    if (!details.open || list.childElementCount) return;
    try {
      const { events } = await get(`/api/v1/events?after=earliest&ticket=${encodeURIComponent(key)}&limit=100`);
      list.replaceChildren(...events.map((/** @type {any} */ event) => h("pre", { tabindex: 0 }, JSON.stringify(event, null, 2))));
    } catch (error) {
      list.replaceChildren(h("p", { class: "quiet" }, String(/** @type {any} */ (error).words ?? error)));
    }
  }
  return details;
}
