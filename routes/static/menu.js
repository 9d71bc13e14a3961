// A menu at a button or a card: what a mouse drags, a keyboard chooses here.

import { h } from "./dom.js";

/** @type {(() => void) | null} */
let closeOpen = null;

/**
 * @typedef {{label: string, icon?: Node, checked?: boolean, run: () => void} | "line" | {title: string}} Item
 * @param {HTMLElement} anchor
 * @param {Item[]} items
 * @param {{label: string, back?: HTMLElement | null}} options `back`: what gets the focus after it
 */
export function openMenu(anchor, items, { label, back = anchor }) {
  closeOpen?.();
  const menu = h("div", { class: "menu", role: "menu", "aria-label": label, tabindex: -1 });
  for (const item of items) {
    if (item === "line") menu.append(h("hr", { role: "separator" }));
    else if ("title" in item) menu.append(h("div", { class: "label", role: "presentation" }, item.title));
    else {
      const role = item.checked === undefined ? "menuitem" : "menuitemradio";
      menu.append(h(
        "button", { type: "button", role, tabindex: -1, "aria-checked": item.checked === undefined ? null : String(item.checked),
          onclick: () => (close(), item.run()) },
        item.icon, h("span", { class: "menu-words" }, item.label), item.checked && h("span", { class: "check", "aria-hidden": "true" }, "✓"),
      ));
    }
  }
  const choices = /** @type {HTMLElement[]} */ ([...menu.querySelectorAll("[role^=menuitem]")]);
  const close = (refocus = true) => {
    closeOpen = null;
    menu.remove();
    anchor.setAttribute("aria-expanded", "false");
    removeEventListener("pointerdown", outside, true);
    removeEventListener("resize", away);
    if (refocus) back?.focus({ preventScroll: true });
  };
  const away = () => close(false);
  const outside = (/** @type {PointerEvent} */ event) => {
    if (!menu.contains(/** @type {Node} */ (event.target))) close(false);
  };
  let typed = "";
  let typedAt = 0;
  menu.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    event.stopPropagation();
    const at = choices.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    // Whoever is typing a name means its letters, and its spaces.
    const typing = Date.now() - typedAt < 700;
    const isLetter = event.key.length === 1 && (typing || /\S/.test(event.key));
    const steps = { ArrowDown: at + 1, j: at + 1, ArrowUp: at - 1, k: at - 1, Home: 0, End: -1 };
    if (event.key === "Escape" || event.key === "Tab") {
      event.preventDefault();
      close();
    } else if (event.key in steps && !(typing && isLetter)) {
      event.preventDefault();
      choices.at(steps[event.key] % choices.length)?.focus();
    } else if (isLetter) {
      event.preventDefault();
      typed = typing ? typed + event.key : event.key;
      typedAt = Date.now();
      choices.find((choice) => choice.textContent?.toLowerCase().startsWith(typed.toLowerCase()))?.focus();
    }
  });
  // A dialog that is open covers everything outside it.
  (anchor.closest("dialog") ?? document.body).append(menu);
  const at = anchor.getBoundingClientRect();
  const { width, height } = menu.getBoundingClientRect();
  menu.style.left = `${Math.max(8, Math.min(at.left, innerWidth - width - 8))}px`;
  menu.style.top = `${at.bottom + height + 8 > innerHeight ? Math.max(8, at.top - height - 4) : at.bottom + 4}px`;
  anchor.setAttribute("aria-expanded", "true");
  addEventListener("pointerdown", outside, true);
  addEventListener("resize", away);
  closeOpen = () => close(false);
  (choices.find((choice) => choice.getAttribute("aria-checked") === "true") ?? choices[0] ?? menu).focus();
}
