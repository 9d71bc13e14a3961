// The bar above the columns: search, filters, columns by what, and who one is.

import * as address from "./address.js";
import { h, icon } from "./dom.js";
import { t } from "./i18n.js";
import { choices } from "./refs.js";
import { actor, asksWho, goBy } from "./session.js";
import { tell } from "./shell.js";
import { ORDERS, PRIORITIES } from "./tickets.js";

const TYPING_MS = 200;

/** The words of a filter's value. @param {string} name @param {string} value */
async function wordsOf(name, value) {
  if (name === "priority") return t(`priority.${value}`);
  if (name === "assignee" && value === "me") return t("filter.me");
  if (value === "none") return t("board.nobody_assigned");
  const kind = /** @type {const} */ ({ assignee: "users", account: "accounts", category: "categories" })[name];
  if (!kind) return value;
  return (await choices(kind)).find((entry) => entry.id === value)?.name ?? value;
}

/**
 * @param {{labels: () => string[], create: () => void, help: () => void, then: () => void, me: any}} ways
 * @returns {HTMLElement}
 */
export function bar({ labels, create, help, then, me }) {
  let typing = 0;
  const search = h("input", {
    type: "search", id: "search", placeholder: t("board.search"), "aria-label": t("board.search"), value: address.value("q") ?? "",
    autocomplete: "off", spellcheck: "false", maxlength: 200, "aria-keyshortcuts": "/",
    oninput: () => {
      clearTimeout(typing);
      typing = setTimeout(() => address.write({ q: search.value.trim() || null }, { kept: true }), TYPING_MS);
    },
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Escape" || event.isComposing) return;
      event.stopPropagation();
      if (search.value) {
        search.value = "";
        address.write({ q: null }, { kept: true });
      } else search.blur();
    },
  });
  const chips = h("div", { class: "chips" });
  const filter = h("button", { type: "button", class: "button", "aria-haspopup": "dialog", "aria-expanded": "false", onclick: () => openFilters(filter, labels(), me) }, t("board.filter"));
  const show = async () => {
    if (document.activeElement !== search) search.value = address.value("q") ?? "";
    const found = Object.entries(address.filters()).flatMap(([name, values]) => values.map((value) => ({ name, value })));
    const made = await Promise.all(found.map(async ({ name, value }) => {
      const words = `${t(`filter.${name}`)}: ${await wordsOf(name, value)}`;
      return h("button", {
        type: "button", class: "button chip", "aria-label": t("filter.remove", { words }),
        onclick: () => (change(name, value, false), filter.focus()),
      }, words, icon("close"));
    }));
    chips.replaceChildren(...made);
  };
  addEventListener("address", () => show().catch(tell));
  addEventListener("popstate", () => show().catch(tell));
  show().catch(tell);
  return h(
    "div", { class: "bar", role: "search" },
    h("div", { class: "search" }, icon("search"), search, h("kbd", { "aria-hidden": "true" }, "/")),
    filter, chips, h("span", { class: "space" }),
    h("button", { type: "button", class: "button icon-only", "aria-label": t("then.open"), title: t("then.open"), onclick: then }, icon("time")),
    h("button", { type: "button", class: "button icon-only", "aria-label": t("board.help"), title: `${t("board.help")} (?)`, "aria-keyshortcuts": "?", onclick: help }, "?"),
    h("button", { type: "button", class: "button main", "aria-keyshortcuts": "c", "aria-label": t("board.new"), title: `${t("board.new")} (c)`, onclick: create }, icon("plus"), h("span", { class: "wide-only" }, t("board.new"))),
  );
}

/** @param {string} name @param {string} value @param {boolean} chosen */
function change(name, value, chosen) {
  const before = /** @type {string[]} */ (address.filters()[name] ?? []);
  const values = chosen ? [...before, value] : before.filter((each) => each !== value);
  address.write({ [name]: values.join(",") || null });
}

/** @param {HTMLElement} anchor @param {string[]} labels @param {any} me */
async function openFilters(anchor, labels, me) {
  const [users, accounts, categories] = await Promise.all(["users", "accounts", "categories"].map((kind) => choices(/** @type {any} */ (kind))));
  const chosen = address.filters();
  const group = (/** @type {string} */ name, /** @type {{id: string, name: string}[]} */ values) => {
    const all = [...values, ...(chosen[name] ?? []).filter((id) => !values.some((each) => each.id === id)).map((id) => ({ id, name: id }))];
    return all.length > 0 && h(
      "fieldset", null, h("legend", { class: "label" }, t(`filter.${name}`)),
      all.map(({ id, name: words }) => h(
        "label", null,
        h("input", { type: "checkbox", checked: chosen[name]?.includes(id) ?? false, onchange: (/** @type {any} */ event) => change(name, id, event.target.checked) }), words,
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
  const order = address.order(ORDERS);
  const orders = h(
    "fieldset", null, h("legend", { class: "label" }, t("board.order")),
    Object.keys(ORDERS).map((each) => h(
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

/** A list of people to say who one is: where nobody signs in, the server takes one's word for it. */
export async function whoAmI() {
  if (asksWho) return null;
  const people = (await choices("users")).filter((user) => user.kind === "human");
  const chosen = actor();
  const select = h(
    "select", { "aria-label": t("board.who"), onchange: () => (goBy(select.value), location.reload()) },
    h("option", { value: "" }, t("board.who_choose")),
    people.map((user) => h("option", { value: user.id, selected: user.id === chosen }, user.name)),
    chosen && !people.some((user) => user.id === chosen) && h("option", { value: chosen, selected: true }, chosen),
  );
  return select;
}
