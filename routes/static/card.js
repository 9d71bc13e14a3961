// One ticket on the board.

import { h, icon } from "./dom.js";
import { dayOf, t } from "./i18n.js";

const HUES = 7;

/** @param {string} actor such as `agent:claude` */
export const nameOf = (actor) => actor.slice(actor.indexOf(":") + 1);

/**
 * What is left until a time: `12:05`, `1h 05m`; empty when it is over.
 * @param {string} until
 */
export function left(until, now = Date.now()) {
  const seconds = Math.floor((new Date(until).getTime() - now) / 1000);
  if (seconds <= 0) return "0:00";
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours ? `${hours}h ${two(minutes)}m` : `${minutes}:${two(seconds % 60)}`;
}

/** Let all countdowns of the page go on. */
export function tick() {
  for (const element of document.querySelectorAll("[data-until]")) {
    const words = left(/** @type {HTMLElement} */ (element).dataset.until ?? "");
    if (element.textContent !== words) element.textContent = words;
  }
}

/**
 * Who has a ticket, as two letters on a colour that goes with the name.
 * @param {string} name
 * @param {{agent?: boolean, label?: string}} [options]
 */
export function avatar(name, { agent = false, label = t("card.assignee", { name }) } = {}) {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + (letter.codePointAt(0) ?? 0)) % 9973;
  const parts = name.split(/[\s_.-]+/).filter(Boolean);
  const letters = parts.length > 1 ? [...parts[0]][0] + [...parts[1]][0] : [...name].slice(0, /[a-z]/i.test(name) ? 2 : 1).join("");
  return h(
    "span", { class: `avatar hue-${sum % HUES}${agent ? " agent" : ""}`, title: label, role: "img", "aria-label": label },
    letters.toUpperCase(),
  );
}

/** The date where the reader is, `YYYY-MM-DD`. Not asked of the browser's formats: for each card that takes longest of all. @param {Date} time */
const dateOf = (time) => [time.getFullYear(), time.getMonth() + 1, time.getDate()].map((part) => String(part).padStart(2, "0")).join("-");

/** @param {string} due @param {string} phase */
export function dueTag(due, phase) {
  const open = phase !== "done" && phase !== "cancelled";
  const today = dateOf(new Date());
  const state = !open ? "" : due < today ? "overdue" : due === today ? "today" : "";
  const words = t(state === "overdue" ? "card.overdue" : "card.due", { day: dayOf(due) });
  return h(
    "span", { class: `due ${state}`, title: words },
    icon("due"), h("time", { datetime: due, "aria-label": words }, state === "today" ? t("card.today") : dayOf(due)),
  );
}

/** @param {{holder: string, expires_at: string}} lease */
export function leaseBadge(lease) {
  const holder = nameOf(lease.holder);
  const words = t("card.held", { holder, left: left(lease.expires_at) });
  return h(
    "span", { class: "lease", title: words },
    icon("agent", t("card.held_by", { holder })), h("span", { class: "lease-holder", "aria-hidden": "true" }, holder),
    h("span", { class: "number", "data-until": lease.expires_at }, left(lease.expires_at)),
  );
}

/** @param {number} percent @param {string | null} [note] */
export function progressBar(percent, note) {
  const words = t("card.progress", { percent });
  return h("progress", { max: 100, value: percent, "aria-label": words, title: note ? `${words}: ${note}` : words });
}

// Copied, what all cards have, or many, is there several times sooner than made anew.
const pattern = h(
  "li", { class: "card" },
  h("div", { class: "card-top" }, h("span", { class: "key" })),
  h("a", { class: "card-title", tabindex: -1, draggable: "false" }, h("span", { class: "hidden-text" })),
  h("div", { class: "card-bottom" }),
);
const menu = h("button", { type: "button", class: "button plain icon-only card-menu", tabindex: -1, "aria-haspopup": "menu" }, icon("more"));
/** @type {Map<string, HTMLElement>} */
const pieces = new Map();

/** @param {string} name @param {() => HTMLElement} make */
function piece(name, make) {
  let found = pieces.get(name);
  if (!found) pieces.set(name, found = make());
  return found.cloneNode(true);
}

/** @param {string} priority */
const priorityMark = (priority) => h("span", { class: `priority ${priority}`, title: t(`priority.${priority}`) }, icon(`priority-${priority}`, t(`priority.${priority}`)));
const nobody = () => h("span", { class: "avatar nobody", role: "img", "aria-label": t("card.unassigned"), title: t("card.unassigned") });

/**
 * The element of a ticket. `href`: where its details are.
 * @param {import("./tickets.js").Ticket} ticket
 * @param {string} href
 * @param {boolean} frozen whether nothing can be done with it
 * @returns {HTMLLIElement}
 */
export function card(ticket, href, frozen) {
  const { key, priority, labels, assignee, progress, lease } = ticket;
  const item = /** @type {any} */ (pattern.cloneNode(true));
  const [top, title, bottom] = item.children;
  item.dataset.key = key;
  top.firstChild.textContent = key;
  if (ticket.blocked) top.append(h("span", { class: "blocked", title: t("card.blocked") }, icon("blocked"), t("card.blocked")));
  if (lease) top.append(leaseBadge(lease));
  title.setAttribute("href", href);
  title.firstChild.textContent = `${key} `;
  title.append(ticket.summary);
  bottom.append(piece(`priority ${priority}`, () => priorityMark(priority)));
  if (ticket.due) bottom.append(dueTag(ticket.due, ticket.phase));
  bottom.append(
    h("span", { class: "labels", title: labels.join(", ") }, labels.map((label) => h("span", { class: "tag" }, label))),
    assignee ? piece(`avatar ${assignee.name}`, () => avatar(assignee.name)) : piece("nobody", nobody),
  );
  if (progress && progress.percent > 0) item.append(progressBar(progress.percent, progress.note));
  if (frozen) return item;
  item.draggable = true;
  const button = /** @type {HTMLElement} */ (menu.cloneNode(true));
  button.setAttribute("aria-label", t("card.menu", { key }));
  item.append(button);
  return item;
}
