// Writing a new ticket.

import { ApiError, send } from "./api.js";
import { field, formDialog, select } from "./ask.js";
import { h } from "./dom.js";
import { t } from "./i18n.js";
import { choices } from "./refs.js";
import { tell, toast } from "./shell.js";
import { PRIORITIES } from "./tickets.js";

/**
 * @param {{open: (key: string) => void, created: (key: string) => void, status?: string}} options
 *   `status`: the column it is written in
 */
export async function compose({ open, created, status = "" }) {
  const [users, accounts, categories, statuses] = await Promise.all(
    ["users", "accounts", "categories", "statuses"].map((kind) => choices(/** @type {any} */ (kind))),
  );
  // A status that wants a reason is chosen when there is something to wait for.
  const beginnings = statuses.filter((each) => each.phase !== "waiting");
  const summary = h("input", { name: "summary", required: true, maxlength: 200, autofocus: true, placeholder: t("compose.summary"), autocomplete: "off" });
  const words = PRIORITIES.map((id) => ({ id, name: t(`priority.${id}`) }));
  let written = "";
  const dialog = formDialog(t("board.new"), [
    field(t("field.summary"), summary),
    field(t("field.description"), h("textarea", { name: "description", maxlength: 65_536 })),
    h(
      "div", { class: "fields" },
      field(t("field.status"), select("status", beginnings, beginnings.some((each) => each.id === status) ? status : "", t("compose.default"))),
      field(t("field.priority"), select("priority", words, "none")),
      field(t("field.person_in_charge"), select("person_in_charge", users, "", t("board.nobody_assigned"))),
      field(t("field.scheduled_completion_date"), h("input", { name: "scheduled_completion_date", type: "date" })),
      field(t("field.account"), select("account", accounts, "", t("none"))),
      field(t("field.category"), select("category", categories, "", t("none"))),
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
 * Say beside each field what is wrong with it, and the rest at the bottom of the page.
 * @param {HTMLFormElement} form @param {unknown} error
 */
export function showFaults(form, error) {
  for (const old of form.querySelectorAll(".field > .error")) old.remove();
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
  if (!told) tell(error);
}
