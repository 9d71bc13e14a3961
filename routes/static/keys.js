// The board by keyboard.

import { isTyping } from "./dom.js";

/**
 * @param {{columns: () => import("./column.js").BoardColumn[], current: () => {column: string, key: string} | null,
 *   go: (column: string, key: string) => void, edit: () => any, menu: (what: "menu" | "people" | "priorities") => any,
 *   close: () => void, undo: () => void, create: () => any, help: () => any}} ways what opens something may answer a
 *   promise of that
 */
export function followKeys(ways) {
  /** @param {number} by */
  const row = (by) => {
    const current = ways.current();
    if (!current) return;
    const column = ways.columns().find((each) => each.dataset.column === current.column);
    if (!column) return;
    const onCard = column.contains(document.activeElement);
    const at = column.keys.indexOf(current.key);
    const key = onCard ? column.keys[Math.min(column.keys.length - 1, Math.max(0, at + by))] : current.key;
    if (key) ways.go(current.column, key);
  };
  /** @param {number} by */
  const sideways = (by) => {
    const current = ways.current();
    const columns = ways.columns().filter((each) => each.keys.length);
    const at = columns.findIndex((each) => each.dataset.column === current?.column);
    const column = columns[at + by];
    if (!current || !column) return;
    const height = columns[at]?.keys.indexOf(current.key) ?? 0;
    ways.go(/** @type {string} */ (column.dataset.column), column.keys[Math.min(height, column.keys.length - 1)]);
  };
  /** @type {Record<string, () => any>} */
  const keys = {
    "/": () => /** @type {HTMLInputElement} */ (document.querySelector("#search"))?.select(),
    j: () => row(1), ArrowDown: () => row(1), k: () => row(-1), ArrowUp: () => row(-1),
    l: () => sideways(1), ArrowRight: () => sideways(1), h: () => sideways(-1), ArrowLeft: () => sideways(-1),
    Home: () => row(-Infinity), End: () => row(Infinity),
    c: ways.create, e: ways.edit, m: () => ways.menu("menu"), a: () => ways.menu("people"), p: () => ways.menu("priorities"),
    "?": ways.help, z: () => void ways.undo(), Escape: () => void ways.close(),
  };
  const only = new Set(["ArrowDown", "ArrowUp", "ArrowLeft", "ArrowRight", "Home", "End"]);
  /** What is typed while something opens: it is meant for that. @type {string[] | null} */
  let ahead = null;
  document.addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (isTyping(event)) {
      if (event.key === "Escape") target.blur();
      return;
    }
    if (ahead) {
      event.preventDefault();
      ahead.push(event.key);
      return;
    }
    // Arrows scroll what has the focus, unless that is a card.
    if (only.has(event.key) && !target.closest("board-column")) return;
    const run = keys[event.key];
    if (!run) return;
    event.preventDefault();
    const opening = run();
    if (!(opening instanceof Promise)) return;
    const typed = /** @type {string[]} */ ([]);
    ahead = typed;
    opening.finally(() => {
      ahead = null;
      typed.forEach(type);
    });
  });
}

/** Do as if a key were pressed now. @param {string} key */
function type(key) {
  const target = /** @type {any} */ (document.activeElement);
  const pressed = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
  if (!target.dispatchEvent(pressed) || key.length > 1 || !target.matches("input, textarea")) return;
  target.setRangeText(key, target.selectionStart, target.selectionEnd, "end");
  target.dispatchEvent(new Event("input", { bubbles: true }));
}
