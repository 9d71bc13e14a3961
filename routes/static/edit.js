// Editing a ticket: what was read is compared with what is there when it is saved, and a person decides where both differ.

import { ApiError, get, send } from "./api.js";
import { leaseOf } from "./actions.js";
import { showFaults } from "./compose.js";
import { h } from "./dom.js";
import { FIELDS, controlOf, sent, valueOf, wordsOf } from "./fields.js";
import { t } from "./i18n.js";
import { nameOf } from "./card.js";
import { toast } from "./shell.js";

/**
 * A form for a ticket.
 * @param {any} ticket as the API answers it
 * @param {{holds: boolean, done: () => void, cancel: () => void}} ways
 * @returns {HTMLFormElement}
 */
export function editor(ticket, { holds, done, cancel }) {
  let base = ticket;
  const controls = FIELDS.map((field) => controlOf(ticket, field));
  const save = h("button", { class: "button main" }, t("save"));
  const notice = h("div", { class: "editor-notice" });
  const form = h(
    "form", { class: "editor", "aria-label": t("edit.title", { key: ticket.key }), onsubmit: submit },
    notice, h("div", { class: "fields" }, controls),
    h("div", { class: "actions" }, h("button", { type: "button", class: "button", onclick: cancel }, t("cancel")), save),
  );
  form.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    if (event.key === "Escape" && !event.isComposing) {
      event.stopPropagation();
      cancel();
    }
  });

  /** What the form has, by field. */
  const values = () => Object.fromEntries(FIELDS.map((field) => [field.name, /** @type {any} */ (form.elements.namedItem(field.name)).value]));
  const mine = () => {
    const now = values();
    return FIELDS.filter((field) => now[field.name] !== valueOf(base, field));
  };

  /** @param {SubmitEvent} event */
  async function submit(event) {
    event.preventDefault();
    const now = values();
    const change = Object.fromEntries(mine().map((field) => [field.name, sent(now[field.name], field)]));
    if (!Object.keys(change).length) return done();
    save.disabled = true;
    try {
      const lease = holds ? leaseOf(ticket.key) : undefined;
      await send("PATCH", `/api/v1/tickets/${ticket.key}`, change, { version: base.version, lease });
      toast(t("edit.done", { key: ticket.key }));
      done();
    } catch (error) {
      if (error instanceof ApiError && error.code === "version_conflict") await merge(error.problem);
      else showFaults(form, error);
    } finally {
      save.disabled = false;
    }
    return undefined;
  }

  /** Show what somebody else changed; where both changed the same, ask. @param {any} problem */
  async function merge(problem) {
    const { ticket: theirs } = await get(`/api/v1/tickets/${ticket.key}`);
    const now = values();
    const changedByMe = new Set(mine().map((field) => field.name));
    const rows = [];
    let disputed = 0;
    for (const field of FIELDS) {
      const [was, is] = [valueOf(base, field), valueOf(theirs, field)];
      if (was === is) continue;
      const control = /** @type {any} */ (form.elements.namedItem(field.name));
      if (!changedByMe.has(field.name) || now[field.name] === is) {
        settle(control, is);
        rows.push(await row(field, was, is, null));
      } else {
        disputed += 1;
        rows.push(await row(field, was, is, { mine: now[field.name], control }));
      }
    }
    base = theirs;
    const who = (problem.actors ?? []).map(nameOf).join(", ");
    notice.replaceChildren(h(
      "section", { class: "conflict", role: "alert", tabindex: -1, "aria-labelledby": "conflict-title" },
      h("h3", { id: "conflict-title" }, t("conflict.title", { who })), h("p", null, t(disputed ? "conflict.choose" : "conflict.fine")), rows,
    ));
    notice.firstElementChild.focus();
    notice.scrollIntoView({ block: "nearest" });
  }

  /**
   * @param {import("./fields.js").Field} field @param {string} was @param {string} is
   * @param {{mine: string, control: any} | null} dispute
   */
  async function row(field, was, is, dispute) {
    const [before, after] = await Promise.all([wordsOf(was, field.kind), wordsOf(is, field.kind)]);
    const label = t(`field.${field.name}`);
    if (!dispute) return h("p", { class: "conflict-row" }, h("b", null, label), " ", h("del", null, before), " → ", h("ins", null, after));
    const { mine: own, control } = dispute;
    const choice = (/** @type {string} */ words, /** @type {string} */ value, /** @type {string} */ shown, checked = false) => h(
      "label", null,
      h("input", { type: "radio", name: `conflict-${field.name}`, checked, onchange: () => settle(control, value) }),
      h("span", { class: "label" }, words), h("span", { class: "conflict-value" }, shown),
    );
    return h(
      "fieldset", { class: "conflict-row" }, h("legend", null, label, " ", h("span", { class: "quiet" }, t("conflict.was", { before }))),
      choice(t("conflict.mine"), own, await wordsOf(own, field.kind), true), choice(t("conflict.theirs"), is, after),
      field.kind === "long" && choice(t("conflict.both"), `${is}\n\n${own}`, t("conflict.both_about")),
    );
  }

  return form;
}

/** @param {any} control @param {string} value */
function settle(control, value) {
  if (control.tagName === "SELECT" && ![...control.options].some((option) => option.value === value)) {
    control.append(h("option", { value }, value));
  }
  control.value = value;
}
