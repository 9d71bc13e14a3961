// The fields of a ticket that people edit, and how they are shown.

import { awaited, field, select } from "./ask.js";
import { h } from "./dom.js";
import { dayOf, knows, t } from "./i18n.js";
import { choices, entries } from "./refs.js";
import { PRIORITIES } from "./tickets.js";

/**
 * @typedef {"text" | "long" | "date" | "number" | "labels" | "priority" | "yesno" | "users" | "accounts" | "categories"
 *   | "category-details" | "statuses" | "request-channels" | "response-categories"} Kind
 * @typedef {{name: string, event: string, kind: Kind}} Field `event`: what events call it
 * @type {Field[]}
 */
export const FIELDS = [
  { name: "summary", event: "summary", kind: "text" },
  { name: "description", event: "description", kind: "long" },
  { name: "status", event: "status", kind: "statuses" },
  { name: "priority", event: "priority", kind: "priority" },
  { name: "person_in_charge", event: "assignee", kind: "users" },
  { name: "scheduled_completion_date", event: "due", kind: "date" },
  { name: "waiting_reason", event: "waiting_reason", kind: "text" },
  { name: "labels", event: "labels", kind: "labels" },
  { name: "requestor", event: "requestor", kind: "users" },
  { name: "account", event: "account", kind: "accounts" },
  { name: "category", event: "category", kind: "categories" },
  { name: "category_detail", event: "category_detail", kind: "category-details" },
  { name: "request_channel", event: "channel", kind: "request-channels" },
  { name: "actual_effort_hours", event: "actual_effort_hours", kind: "number" },
  { name: "response_category", event: "response_category", kind: "response-categories" },
  { name: "response_details", event: "response_details", kind: "long" },
  { name: "has_defect", event: "has_defect", kind: "yesno" },
  { name: "external_ticket_id", event: "external_ticket_id", kind: "text" },
  { name: "parent", event: "parent", kind: "text" },
  { name: "remarks", event: "remarks", kind: "long" },
];

const CHOSEN = new Set(["users", "accounts", "categories", "category-details", "statuses", "request-channels", "response-categories"]);

/** A field's value as a form has it. @param {any} ticket as the API answers it @param {Field} field @returns {string} */
export function valueOf(ticket, { name, kind }) {
  const value = ticket[name];
  if (value === null || value === undefined) return "";
  if (CHOSEN.has(kind)) return value.id;
  if (kind === "labels") return value.join(", ");
  return String(value);
}

/** The same as the API takes it. @param {string} value @param {Field} field @returns {any} */
export function sent(value, { kind }) {
  if (kind === "labels") return value.split(/[,、]/).map((label) => label.trim()).filter(Boolean);
  if (value.trim() === "") return null;
  if (kind === "number") return Number(value);
  if (kind === "yesno") return value === "true";
  return value;
}

/** What a person reads of a value. @param {any} value as events and forms have it @param {Kind} kind @returns {Promise<string>} */
export async function wordsOf(value, kind) {
  if (value === null || value === undefined || value === "") return t("none");
  if (Array.isArray(value)) return value.join(", ") || t("none");
  if (CHOSEN.has(kind)) return (await entries(/** @type {any} */ (kind))).find((entry) => entry.id === value)?.name ?? String(value);
  if (kind === "priority") return t(`priority.${value}`);
  if (kind === "yesno") return t(String(value) === "true" ? "yes" : "no");
  if (kind === "date") return dayOf(String(value));
  return String(value);
}

/** @param {string} event what events call a field @returns {string} */
export function labelOf(event) {
  const known = FIELDS.find((each) => each.event === event);
  const key = `field.${known?.name ?? event}`;
  return knows(key) ? t(key) : event;
}

/** The control of a field. @param {any} ticket @param {Field} each @returns {HTMLElement} */
export function controlOf(ticket, each) {
  const { name, kind } = each;
  const value = valueOf(ticket, each);
  const label = t(`field.${name}`);
  if (CHOSEN.has(kind)) {
    return field(label, awaited(name, choices(/** @type {any} */ (kind)), ticket[name] ?? null, name === "status" ? undefined : t("none")));
  }
  if (kind === "priority") return field(label, select(name, PRIORITIES.map((id) => ({ id, name: t(`priority.${id}`) })), value));
  if (kind === "yesno") return field(label, select(name, [{ id: "true", name: t("yes") }, { id: "false", name: t("no") }], value, t("none")));
  if (kind === "long") return field(label, h("textarea", { name, maxlength: 65_536, value, rows: name === "description" ? 7 : 3 }), "wide");
  const type = kind === "date" ? "date" : kind === "number" ? "number" : "text";
  const limits = name === "summary" ? { required: true, maxlength: 200 } : kind === "number" ? { min: 0, step: "any" } : {};
  return field(label, h("input", { name, type, value, autocomplete: "off", ...limits }), name === "summary" || kind === "labels" ? "wide" : "");
}
