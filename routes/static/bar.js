// The bar above the columns: search, filters, columns by what, and who one is.

import * as address from "./address.js";
import { h, icon } from "./dom.js";
import { t } from "./i18n.js";
import { choices } from "./refs.js";
import { actor, asksWho, goBy } from "./session.js";
import { tell } from "./shell.js";

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
 * @param {{filters: (anchor: HTMLElement) => void, create: () => void, help: () => void, then: () => void}} ways
 * @returns {HTMLElement}
 */
export function bar({ filters, create, help, then }) {
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
  const filter = h("button", { type: "button", class: "button", "aria-haspopup": "dialog", "aria-expanded": "false", onclick: () => filters(filter) }, t("board.filter"));
  const show = async () => {
    if (document.activeElement !== search) search.value = address.value("q") ?? "";
    const found = Object.entries(address.filters()).flatMap(([name, values]) => values.map((value) => ({ name, value })));
    const made = await Promise.all(found.map(async ({ name, value }) => {
      const words = `${t(`filter.${name}`)}: ${await wordsOf(name, value)}`;
      return h("button", {
        type: "button", class: "button chip", "aria-label": t("filter.remove", { words }),
        onclick: () => (address.choose(name, value, false), filter.focus()),
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
