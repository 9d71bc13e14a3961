// The panel of filters: what narrows the board, columns by what, and what comes first in them.

import * as address from "./address.js";
import { h } from "./dom.js";
import { t } from "./i18n.js";
import { choices } from "./refs.js";
import { PRIORITIES } from "./tickets.js";

/** @param {HTMLElement} anchor @param {string[]} labels @param {any} me */
export async function openFilters(anchor, labels, me) {
  const [users, accounts, categories] = await Promise.all(["users", "accounts", "categories"].map((kind) => choices(/** @type {any} */ (kind))));
  const chosen = address.filters();
  const group = (/** @type {string} */ name, /** @type {{id: string, name: string}[]} */ values) => {
    const all = [...values, ...(chosen[name] ?? []).filter((id) => !values.some((each) => each.id === id)).map((id) => ({ id, name: id }))];
    return all.length > 0 && h(
      "fieldset", null, h("legend", { class: "label" }, t(`filter.${name}`)),
      all.map(({ id, name: words }) => h(
        "label", null,
        h("input", { type: "checkbox", checked: chosen[name]?.includes(id) ?? false, onchange: (/** @type {any} */ event) => address.choose(name, id, event.target.checked) }), words,
      )),
    );
  };
  const by = address.value("group") ?? "status";
  const columns = h(
    "fieldset", null, h("legend", { class: "label" }, t("board.group")),
    ["status", "phase"].map((each) => h(
      "label", null,
      h("input", { type: "radio", name: "group", checked: each === by, onchange: () => address.write({ group: each === "phase" ? each : null }) }), t(`board.by_${each}`),
    )),
  );
  const order = address.order();
  const orders = h(
    "fieldset", null, h("legend", { class: "label" }, t("board.order")),
    address.ORDERS.map((each) => h(
      "label", null,
      h("input", { type: "radio", name: "sort", checked: each === order, onchange: () => address.write({ sort: each === "updated" ? null : each }) }), t(`board.order_${each}`),
    )),
  );
  const nobody = { id: "none", name: t("board.nobody_assigned") };
  const mine = me.user ? [{ id: "me", name: t("filter.me") }] : [];
  const panel = h(
    "div", { class: "menu filters", role: "dialog", "aria-label": t("board.filter"), tabindex: -1 },
    group("assignee", [...mine, nobody, ...users]), group("priority", PRIORITIES.map((id) => ({ id, name: t(`priority.${id}`) }))),
    group("label", labels.map((id) => ({ id, name: id }))), group("account", accounts), group("category", categories), h("div", null, columns, orders),
    h("div", { class: "actions" },
      h("button", { type: "button", class: "button plain", onclick: () => (address.write(Object.fromEntries(address.FIELDS.map((name) => [name, null]))), close()) }, t("board.clear"))),
  );
  const close = () => {
    panel.remove();
    anchor.setAttribute("aria-expanded", "false");
    removeEventListener("pointerdown", outside, true);
    anchor.focus();
  };
  const outside = (/** @type {PointerEvent} */ event) => !panel.contains(/** @type {Node} */ (event.target)) && close();
  panel.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    event.stopPropagation();
    if (event.key === "Escape") close();
  });
  panel.addEventListener("focusout", (/** @type {FocusEvent} */ event) => {
    if (event.relatedTarget && !panel.contains(/** @type {Node} */ (event.relatedTarget))) close();
  });
  document.body.append(panel);
  const at = anchor.getBoundingClientRect();
  panel.style.left = `${Math.max(8, Math.min(at.left, innerWidth - panel.offsetWidth - 8))}px`;
  panel.style.top = `${at.bottom + 4}px`;
  anchor.setAttribute("aria-expanded", "true");
  addEventListener("pointerdown", outside, true);
  panel.querySelector("input")?.focus();
}
