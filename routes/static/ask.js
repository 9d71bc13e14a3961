// Small questions, asked in a dialog.

import { h } from "./dom.js";
import { t } from "./i18n.js";

let number = 0;

/**
 * Open a dialog with a form. Its element is gone when it closes, and what had the focus has it again.
 * @param {string} title
 * @param {(Node | null)[]} content
 * @param {{go: string, danger?: boolean, submit: (form: HTMLFormElement) => Promise<boolean | void> | boolean | void,
 *   wide?: boolean}} options `submit` answers false to keep it open
 * @returns {HTMLDialogElement}
 */
export function formDialog(title, content, { go, danger = false, submit, wide = false }) {
  const id = `dialog-${++number}`;
  const back = /** @type {HTMLElement | null} */ (document.activeElement);
  const main = h("button", { class: `button ${danger ? "danger" : "main"}` }, go);
  const form = h(
    "form", { onsubmit: async (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      if (main.disabled) return;
      main.disabled = true;
      const stay = (await submit(form)) === false;
      main.disabled = false;
      if (!stay) dialog.close("done");
    } },
    h("h2", { id }, title), content.filter(Boolean),
    h("div", { class: "actions" },
      h("button", { type: "button", class: "button", onclick: () => dialog.close() }, t("cancel")), main),
  );
  const dialog = h("dialog", { "aria-labelledby": id, class: wide && "wide" }, form);
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (back?.isConnected) back.focus({ preventScroll: true });
  });
  dialog.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    event.stopPropagation();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/**
 * @param {string} title @param {string} about @param {string} go
 * @returns {Promise<boolean>} whether the person agreed
 */
export function confirmed(title, about, go) {
  return new Promise((resolve) => {
    const dialog = formDialog(title, [h("p", null, about)], { go, danger: true, submit: () => true });
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "done"));
  });
}

/**
 * @param {string} title @param {string} label @param {string} go
 * @returns {Promise<string | null>} null when the person left it
 */
export function answered(title, label, go) {
  return new Promise((resolve) => {
    const input = h("input", { id: "answer", required: true, maxlength: 1000, autofocus: true });
    const dialog = formDialog(title, [field(label, input)], { go, submit: () => true });
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "done" ? input.value.trim() : null));
  });
}

/**
 * A control with its label.
 * @param {string} label @param {HTMLElement} control @param {string} [wide]
 */
export function field(label, control, wide = "") {
  control.id ||= `field-${++number}`;
  return h("div", { class: `field ${wide}` }, h("label", { for: control.id }, label), control);
}

/**
 * A list to choose from.
 * @param {string} name
 * @param {{id: string, name: string}[]} entries
 * @param {string} chosen
 * @param {string} [none] words for choosing nothing
 */
export function select(name, entries, chosen, none) {
  const known = entries.some((entry) => entry.id === chosen);
  return h(
    "select", { name },
    none !== undefined && h("option", { value: "", selected: chosen === "" }, none),
    entries.map((entry) => h("option", { value: entry.id, selected: entry.id === chosen }, entry.name)),
    !known && chosen !== "" && h("option", { value: chosen, selected: true }, chosen),
  );
}
