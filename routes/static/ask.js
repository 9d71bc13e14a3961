// Small questions, asked in a dialog.

import { h } from "./dom.js";
import { t } from "./i18n.js";

let number = 0;

/**
 * Open a dialog. Its element is gone when it closes, and what had the focus has it again.
 * @param {string} title
 * @param {HTMLElement} body
 * @param {string} [kind] its class
 * @returns {HTMLDialogElement}
 */
export function openDialog(title, body, kind = "") {
  const id = `dialog-${++number}`;
  const back = /** @type {HTMLElement | null} */ (document.activeElement);
  body.prepend(h("h2", { id }, title));
  const dialog = h("dialog", { "aria-labelledby": id, class: kind || null }, body);
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (back?.isConnected) back.focus({ preventScroll: true });
  });
  // The page's own keys are not for what is typed here.
  dialog.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => event.stopPropagation());
  document.body.append(dialog);
  dialog.showModal();
  if (!dialog.querySelector("[autofocus]")) {
    const first = /** @type {HTMLInputElement[]} */ ([...dialog.querySelectorAll("input:not([readonly])")]);
    (first.find((control) => !control.value) ?? first[0])?.focus();
  }
  return dialog;
}

/**
 * Open a dialog with a form.
 * @param {string} title
 * @param {(Node | null)[]} content
 * @param {{go: string, danger?: boolean, submit: (form: HTMLFormElement) => Promise<boolean | void> | boolean | void,
 *   wide?: boolean}} options `submit` answers false to keep it open
 * @returns {HTMLDialogElement}
 */
export function formDialog(title, content, { go, danger = false, submit, wide = false }) {
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
    content.filter(Boolean),
    h("div", { class: "actions" },
      h("button", { type: "button", class: "button", onclick: () => dialog.close() }, t("cancel")), main),
  );
  form.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  const dialog = openDialog(title, form, wide ? "wide" : "");
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

/**
 * The same, of entries that may still be on their way: nobody waits for them before they write.
 * @param {string} name
 * @param {Promise<{id: string, name: string}[]>} entries
 * @param {{id: string, name: string} | null} chosen
 * @param {string} [none] words for choosing nothing
 */
export function awaited(name, entries, chosen, none) {
  const list = select(name, chosen ? [chosen] : [], chosen?.id ?? "", none);
  // Where they do not come, what is chosen stays.
  const fill = (/** @type {{id: string, name: string}[]} */ found) => {
    const { value } = list;
    list.replaceChildren(...select(name, found, value, none).children);
    list.value = value;
  };
  entries.then(fill, () => {});
  return list;
}
