// The columns of the board: which there are, what each shows, and the card that keys are about.

import * as address from "./address.js";
import { whoAmI } from "./bar.js";
import { card } from "./card.js";
import { BoardColumn } from "./column.js";
import { h } from "./dom.js";
import { t } from "./i18n.js";
import { Pace, whenIdle } from "./pace.js";
import { tell } from "./shell.js";

const NEEDS_YOU = "needs-you";
const FOLDED = "taskhub.folded";
// Of a frame: to lay out and paint what was made in that time takes the browser several times as long.
const SCRIPT_MS = 4;

/** Which columns are folded, and those (with a plus) that are not although such columns begin so. @returns {Set<string>} */
const folded = () => new Set(JSON.parse(localStorage.getItem(FOLDED) ?? "[]"));

/** @param {string} id @param {boolean} hidden */
function remember(id, hidden) {
  const kept = folded();
  kept.delete(hidden ? `+${id}` : id);
  kept.add(hidden ? id : `+${id}`);
  localStorage.setItem(FOLDED, JSON.stringify([...kept]));
}

export class Columns {
  /** @type {{column: string, key: string} | null} the card that keys are about */ current = null;
  /** Told when all that has changed is drawn, or a part of it. */ ondraw = () => {};
  #tickets;
  #ways;
  /** @type {Map<string, BoardColumn>} */ #elements = new Map();
  /** @type {string | null} a ticket that was written here, and is about to appear */ #expected = null;
  #pace = new Pace(() => this.#draw());
  /** What each column shows. @type {WeakMap<BoardColumn, {column: any, changed: number}>} */ #drawn = new WeakMap();
  /** When each column was drawn last. @type {WeakMap<any, number>} */ #turns = new WeakMap();
  #turn = 0;
  #cardHadFocus = false;

  /**
   * @param {{tickets: import("./tickets.js").Tickets, needsYou: () => boolean, frozen: () => boolean,
   *   more: (id: string) => void, clear: () => void}} ways `needsYou`: whether there is a column for what waits for the
   *   person; `frozen`: whether what is shown is the past; `clear`: nothing narrows the board any more
   */
  constructor(ways) {
    this.#tickets = ways.tickets;
    this.#ways = ways;
    this.element = h("div", { class: "columns" });
    this.picker = h("div", { class: "column-picker", role: "group", "aria-label": t("board.columns") });
    this.emptiness = h("div", { class: "board-empty", hidden: true });
    this.#followFocus();
  }

  /** Those that are to be seen, in order. */
  get shown() {
    return [...this.#elements.values()].filter((each) => !each.folded && !each.hidden);
  }

  /** The link of the current card, or of another one in its column. */
  linkOf(key = this.current?.key) {
    return (this.current && key && this.#elements.get(this.current.column)?.linkOf(key)) ?? null;
  }

  /** So many tickets have changed: what changes faster than anybody can follow is not shown in motion. @param {number} changes */
  count(changes) {
    const show = () => {
      const { isHurried } = this.#pace;
      if (BoardColumn.isHurried === isHurried) return;
      BoardColumn.isHurried = isHurried;
      this.element.classList.toggle("hurried", isHurried);
      if (!isHurried) for (const element of this.#elements.values()) whenIdle(() => element.show(element.keys, element.count));
    };
    this.#pace.count(changes, show);
    show();
  }

  /** Draw what has changed, soon. */
  draw() {
    this.#pace.soon();
  }

  /** A ticket that was written here is the current one as soon as it is there. @param {string} key */
  expect(key) {
    this.#expected = key;
    this.draw();
  }

  #draw() {
    // The first time there is nothing yet that anybody could do, and together it is there sooner.
    const until = this.#turn === 0 ? Infinity : performance.now() + SCRIPT_MS;
    this.#arrange();
    this.#showEmptiness(); // before anything is laid out, or given the focus, which what is hidden cannot have
    const changed = this.#tickets.columns.filter((column) => {
      const element = this.#elements.get(column.id);
      const before = element && this.#drawn.get(element);
      return element && (before?.column !== column || before.changed !== column.changed);
    });
    // What there is no time for has its turn first the next time.
    changed.sort((a, b) => (this.#turns.get(a) ?? 0) - (this.#turns.get(b) ?? 0));
    let done = 0;
    for (const column of changed) {
      if (done && performance.now() > until) break;
      const element = /** @type {BoardColumn} */ (this.#elements.get(column.id));
      this.#drawn.set(element, { column, changed: column.changed });
      this.#turns.set(column, ++this.#turn);
      element.show(column.keys, column.count);
      done += 1;
      if (this.#pace.isHurried) break;
    }
    if (done < changed.length) this.draw();
    const mine = this.#tickets.needsMe();
    this.#elements.get(NEEDS_YOU)?.show(mine, mine.length);
    const title = `${mine.length ? `(${mine.length}) ` : ""}${t("nav.board")} · TaskHub`;
    if (document.title !== title) document.title = title;
    this.#settleCurrent();
    this.#showPicker();
    this.ondraw();
  }

  /** Make the columns that the board has now, in its order. */
  #arrange() {
    const wanted = new Map();
    if (this.#ways.needsYou()) wanted.set(NEEDS_YOU, { id: NEEDS_YOU, name: t("board.needs_you"), phase: null });
    for (const column of this.#tickets.columns) wanted.set(column.id, column);
    for (const [id, element] of this.#elements) {
      if (wanted.has(id) && element.dataset.name === wanted.get(id).name) continue;
      element.remove();
      this.#elements.delete(id);
    }
    let at = 0;
    for (const column of wanted.values()) {
      const element = this.#elements.get(column.id) ?? this.#make(column);
      if (this.element.children[at] !== element) this.element.insertBefore(element, this.element.children[at] ?? null);
      at += 1;
    }
    if (!this.element.querySelector("[data-current]")) this.#choose(this.#tickets.columns[0]?.id);
  }

  /** @param {any} column */
  #make({ id, name, phase }) {
    const element = new BoardColumn();
    const { frozen, more } = this.#ways;
    element.setUp({
      id, name, phase, tinted: id === NEEDS_YOU, ticketOf: (key) => this.#tickets.get(key),
      cardOf: (ticket) => card(ticket, address.hrefOf(ticket.key), frozen()),
    });
    this.#elements.set(id, element);
    element.folded = folded().has(id) || (phase === "cancelled" && !folded().has(`+${id}`));
    element.fold.addEventListener("click", () => {
      element.folded = !element.folded;
      remember(id, element.folded);
    });
    element.addEventListener("need", () => more(id));
    if (id === NEEDS_YOU) this.#fillNeedsYou(element).catch(tell);
    return element;
  }

  /** @param {BoardColumn} element */
  async #fillNeedsYou(element) {
    if (this.#tickets.me !== null) {
      element.empty.replaceChildren(h("p", { class: "quiet" }, t("board.nothing_waits")));
      return;
    }
    element.empty.replaceChildren(h("p", { class: "quiet" }, t("board.who_about")), ...[await whoAmI()].filter((each) => each !== null));
  }

  /** On a narrow screen one column is there at a time. @param {string | undefined} id */
  #choose(id) {
    for (const [each, element] of this.#elements) element.toggleAttribute("data-current", each === id);
    for (const button of this.picker.children) button.setAttribute("aria-pressed", String(button.dataset.column === id));
  }

  /** The card that keys are about is always one that is there: Tab leads to it. */
  #settleCurrent() {
    const columnOf = (/** @type {string | undefined | null} */ key) => this.#tickets.columns.find(({ keys }) => key && keys.includes(key));
    const appeared = this.#expected && columnOf(this.#expected);
    if (appeared && this.#expected && !document.querySelector("dialog[open]")) {
      this.go(appeared.id, this.#expected, true);
      this.#expected = null;
      return;
    }
    const { current } = this;
    if (current && this.#elements.get(current.column)?.keys.includes(current.key)) return;
    // It may have moved: then the keys, and the focus if it had it, go along.
    const column = columnOf(current?.key);
    const first = this.#tickets.columns.find(({ keys }) => keys.length);
    if (column && current) this.go(column.id, current.key);
    else if (first) this.go(first.id, first.keys[0]);
  }

  /** Make a card the current one. @param {string} column @param {string} key */
  go(column, key, focus = this.#hadFocus()) {
    if (this.current && this.current.column !== column) this.#elements.get(this.current.column)?.lead(null);
    this.current = { column, key };
    const element = this.#elements.get(column);
    element?.lead(key);
    if (!focus) return;
    this.#choose(column);
    element?.focusCard(key);
  }

  #followFocus() {
    this.element.addEventListener("focusin", (/** @type {FocusEvent} */ event) => {
      const item = /** @type {HTMLElement} */ (event.target).closest("li[data-key]");
      this.#cardHadFocus = item !== null;
      const column = item?.closest("board-column");
      if (item && column && (this.current?.key !== item.dataset.key || this.current?.column !== column.dataset.column)) {
        this.go(column.dataset.column, item.dataset.key, false);
      }
    });
    this.element.addEventListener("focusout", (/** @type {FocusEvent} */ event) => {
      // A card that is taken away loses the focus to nothing; only who leaves by themselves has left.
      if (event.relatedTarget) this.#cardHadFocus = false;
    });
    addEventListener("pointerdown", () => (this.#cardHadFocus = false), true);
  }

  #hadFocus() {
    return this.#cardHadFocus && (document.activeElement === document.body || this.element.contains(document.activeElement));
  }

  #showPicker() {
    const { picker } = this;
    const shown = [...this.#elements.values()];
    if (picker.children.length !== shown.length || shown.some((each, i) => picker.children[i].dataset.column !== each.dataset.column)) {
      picker.replaceChildren(...shown.map((element) => h(
        "button", { type: "button", class: "button", "data-column": element.dataset.column, "aria-pressed": String(element.hasAttribute("data-current")),
          onclick: () => this.#choose(element.dataset.column) },
        element.dataset.name, h("span", { class: "count number" }),
      )));
    }
    shown.forEach((element, i) => {
      const count = picker.children[i].querySelector(".count");
      if (count && count.textContent !== String(element.count)) count.textContent = String(element.count);
    });
  }

  #showEmptiness() {
    const { emptiness } = this;
    const narrowed = Boolean(address.value("q") || Object.keys(address.filters()).length);
    const empty = this.#tickets.columns.length > 0 && this.#tickets.size === 0;
    emptiness.hidden = !empty;
    this.element.hidden = empty;
    if (!empty || emptiness.dataset.narrowed === String(narrowed)) return;
    emptiness.dataset.narrowed = String(narrowed);
    if (narrowed) {
      emptiness.replaceChildren(h("h2", null, t("board.nothing_found")), h("button", { type: "button", class: "button", onclick: this.#ways.clear }, t("board.clear")));
      return;
    }
    const command = h("pre", { tabindex: 0 });
    emptiness.replaceChildren(h("h2", null, t("board.empty_title")), h("p", null, t("board.empty_about")), command);
    import("./help.js").then(({ commands }) => command.replaceChildren(commands()[1])).catch(tell);
  }
}
