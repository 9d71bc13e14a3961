// Writing a new ticket.

import { ApiError, send, words } from "./api.js";
import { awaited, field, formDialog, select } from "./ask.js";
import { h } from "./dom.js";
import { t } from "./i18n.js";
import { choices } from "./refs.js";
import { tell, toast } from "./shell.js";
import { PRIORITIES } from "./tickets.js";

/**
 * @param {{open: (key: string) => void, created: (key: string) => void,
 *   status?: {id: string, name: string, phase: string} | null}} options `status`: of the column it is written in
 */
export function compose({ open, created, status = null }) {
  const list = (/** @type {string} */ name, /** @type {any} */ kind) => awaited(name, choices(kind), null, t("none"));
  const users = awaited("person_in_charge", choices("users"), null, t("board.nobody_assigned"));
  // A status that wants a reason is chosen when there is something to wait for.
  const isBeginning = (/** @type {{phase?: string}} */ each) => each.phase !== "waiting";
  const beginnings = choices("statuses").then((statuses) => statuses.filter(isBeginning));
  const statuses = awaited("status", beginnings, status && isBeginning(status) ? status : null, t("compose.default"));
  const summary = h("input", { name: "summary", required: true, maxlength: 200, autofocus: true, placeholder: t("compose.summary"), autocomplete: "off" });
  const priorities = PRIORITIES.map((id) => ({ id, name: t(`priority.${id}`) }));
  let written = "";
  const dialog = formDialog(t("board.new"), [
    field(t("field.summary"), summary),
    field(t("field.description"), h("textarea", { name: "description", maxlength: 65_536 })),
    h(
      "div", { class: "fields" },
      field(t("field.status"), statuses),
      field(t("field.priority"), select("priority", priorities, "none")),
      field(t("field.person_in_charge"), users),
      field(t("field.scheduled_completion_date"), h("input", { name: "scheduled_completion_date", type: "date" })),
      field(t("field.account"), list("account", "accounts")),
      field(t("field.category"), list("category", "categories")),
      field(t("field.labels"), h("input", { name: "labels", placeholder: t("field.labels_hint"), autocomplete: "off" }), "wide"),
    ),
  ], {
    go: t("compose.go"), wide: true,
    submit: async (form) => {
      const values = Object.fromEntries([...new FormData(form)].filter(([, value]) => String(value).trim() !== ""));
      if (values.labels) values.labels = /** @type {any} */ (String(values.labels).split(/[,、]/).map((label) => label.trim()).filter(Boolean));
      try {
        const { key } = await send("POST", "/api/v1/tickets", values);
        written = key;
        toast(t("compose.done", { key }), { action: t("menu.open"), onaction: () => open(key) });
        return true;
      } catch (error) {
        showFaults(form, error);
        return false;
      }
    },
  });
  dialog.addEventListener("close", () => written && created(written));
}

/**
 * Say beside each field what is wrong with it, and the rest above the buttons.
 * @param {HTMLFormElement} form @param {unknown} error
 */
export function showFaults(form, error) {
  for (const old of form.querySelectorAll(".field > .error, .notice.error")) old.remove();
  for (const old of form.querySelectorAll("[aria-invalid]")) old.removeAttribute("aria-invalid");
  const faults = error instanceof ApiError ? error.problem.errors ?? [] : [];
  let told = false;
  for (const { pointer, reason } of faults) {
    const control = /** @type {HTMLElement | null} */ (form.elements.namedItem((pointer ?? "").split("/")[1] ?? ""));
    if (!control) continue;
    const id = `${control.id}-error`;
    control.setAttribute("aria-invalid", "true");
    control.setAttribute("aria-describedby", id);
    control.after(h("p", { class: "error", id }, reason));
    if (!told) control.focus();
    told = true;
  }
  if (told) return;
  if (error instanceof ApiError && error.status === 401) tell(error);
  else form.querySelector(".actions")?.before(h("p", { class: "notice error", role: "alert" }, h("span", null, words(error))));
}
