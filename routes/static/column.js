// A column of the board: as many cards as it has, of which only those in sight exist.

import { h, icon } from "./dom.js";
import { t } from "./i18n.js";
import { whenIdle } from "./pace.js";

const BEYOND = 4;
const FRESH_MS = 1800;

/**
 * `<board-column>`. It asks for what it lacks with `need` events, in which `detail` is the number of the last row in
 * sight.
 */
export class BoardColumn extends HTMLElement {
  /** @type {string[]} */ #keys = [];
  #count = 0;
  /** @type {Map<string, {item: HTMLElement, ticket: any, controls: HTMLElement[], at: number, of: number}>} */ #cards = new Map();
  /** @type {HTMLElement[]} */ #blanks = [];
  /** Of all columns: a card is as high in one as in the other. */
  static #rowHeight = 0;
  /** As a column is that was just made. */
  static #usualHeight = 0;
  /** Whether more changes come than anybody can follow: then nothing is shown in motion, and no row out of sight. */
  static isHurried = false;
  /** @type {BoardColumn[]} those that have no more rows than there are in sight */
  static #narrow = [];
  // Kept, because asking the browser for them amid changes makes it lay out everything each time.
  #top = 0;
  /** @type {number | null} null until it is told */ #height = null;
  /** So many rows more than there are in sight: none at first, so that what is in sight is there sooner. */
  #beyond = 0;
  #shown = false;
  /** @type {(key: string) => any} */ #ticketOf = () => undefined;
  /** @type {(ticket: any) => HTMLElement} */ #cardOf = () => h("li");
  /** @type {string | null} the card that Tab leads to */ #current = null;

  /**
   * @param {{id: string, name: string, phase: string | null, tinted?: boolean, ticketOf: (key: string) => any,
   *   cardOf: (ticket: any) => HTMLElement}} options
   */
  setUp({ id, name, phase, tinted = false, ticketOf, cardOf }) {
    this.id = `column-${id}`;
    this.dataset.column = id;
    this.dataset.name = name;
    if (phase) this.dataset.phase = phase;
    this.classList.toggle("tinted", tinted);
    this.#ticketOf = ticketOf;
    this.#cardOf = cardOf;
    this.counter = h("span", { class: "count number" }, "0");
    this.fold = h("button", { type: "button", class: "button plain fold", "aria-expanded": "true" },
      phase ? icon(phase) : icon("person"), h("span", { class: "column-name" }, name), " ", this.counter);
    this.heading = h("h2", { id: `${this.id}-name` }, this.fold);
    this.list = h("ul", { role: "list", class: "cards", "aria-labelledby": `${this.id}-name` });
    this.empty = h("div", { class: "column-empty", hidden: true }, h("p", { class: "quiet" }, t("board.empty_column")));
    this.scroller = h("div", { class: "column-body" }, this.empty, this.list);
    this.setAttribute("role", "group");
    this.setAttribute("aria-labelledby", `${this.id}-name`);
    this.replaceChildren(h("div", { class: "column-head" }, this.heading), this.scroller);
    this.scroller.addEventListener("scroll", () => {
      this.#top = this.scroller.scrollTop;
      this.#render();
    }, { passive: true });
    new ResizeObserver(() => {
      const height = this.scroller.clientHeight;
      if (height === (this.#height ?? BoardColumn.#usualHeight)) return;
      this.#height = height;
      this.#render();
    }).observe(this.scroller);
  }

  get keys() {
    return this.#keys;
  }

  get count() {
    return this.#count;
  }

  set folded(/** @type {boolean} */ folded) {
    this.toggleAttribute("data-folded", folded);
    this.scroller.hidden = folded;
    this.fold.setAttribute("aria-expanded", String(!folded));
    this.#render();
  }

  get folded() {
    return this.hasAttribute("data-folded");
  }

  /** @param {string[]} keys @param {number} count of which these are the first */
  show(keys, count) {
    this.#keys = keys;
    this.#count = Math.max(count, keys.length);
    const words = String(count);
    if (this.counter.textContent !== words) this.counter.textContent = words;
    this.empty.hidden = count > 0;
    this.toggleAttribute("data-empty", count === 0);
    this.#render();
    if (this.#shown) return;
    this.#shown = true;
    // All at once: each time, the browser lays out anew.
    if (BoardColumn.#narrow.push(this) === 1) whenIdle(() => BoardColumn.#narrow.splice(0).forEach((column) => column.#widen()));
  }

  #widen() {
    this.#beyond = BEYOND;
    this.#render();
  }

  /** @param {string} key @returns {HTMLElement | null} */
  linkOf(key) {
    return this.#cards.get(key)?.item.querySelector("a") ?? null;
  }

  /** Let Tab lead to another card, or to none here. @param {string | null} key */
  lead(key) {
    const before = this.#current;
    this.#current = key;
    for (const each of [before, key]) {
      const card = each && this.#cards.get(each);
      if (card) this.#tab(card, each === key);
    }
    // Where it is not there yet it comes with the others; amid many changes that is when this column has its turn.
    if (key && !this.#cards.has(key) && !BoardColumn.isHurried) this.#render();
  }

  /** Bring a card into sight and give it the focus. @param {string} key */
  focusCard(key) {
    const at = this.#keys.indexOf(key);
    if (at < 0) return;
    this.#current = key;
    const row = BoardColumn.#rowHeight;
    const [top, height] = [at * row, this.scroller.clientHeight];
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top + row > this.scroller.scrollTop + height) this.scroller.scrollTop = top + row - height;
    this.#top = this.scroller.scrollTop;
    this.#render();
    const link = this.linkOf(key);
    link?.focus({ preventScroll: true });
    link?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #render() {
    if (this.folded || !this.isConnected) return;
    BoardColumn.#rowHeight ||= this.#measure();
    const height = BoardColumn.#rowHeight;
    if (height === 0) return; // nobody sees this column, on a narrow screen; when somebody does, its size changes
    const beyond = BoardColumn.isHurried ? 0 : this.#beyond;
    const first = Math.max(0, Math.floor(this.#top / height) - beyond);
    const end = this.#top + (this.#height ?? BoardColumn.#usualHeight);
    const last = Math.min(this.#count, Math.ceil(end / height) + beyond);
    const size = `${this.#count * height}px`;
    if (this.list.style.height !== size) this.list.style.height = size;
    const focused = this.list.contains(document.activeElement)
      ? /** @type {HTMLElement} */ (document.activeElement).closest("li")?.dataset.key : undefined;
    const wanted = new Map(this.#keys.slice(first, last).map((key, i) => [key, first + i]));
    // The card with the focus exists wherever it is, and so does the one that Tab leads to.
    for (const key of [focused, this.#current]) {
      const at = key === undefined || key === null ? -1 : this.#keys.indexOf(key);
      if (key && at >= 0) wanted.set(key, at);
    }
    // This column may have its turn later than the tickets were read anew: then some of its keys are of none.
    for (const key of wanted.keys()) if (!this.#ticketOf(key)) wanted.delete(key);
    for (const [key, { item }] of this.#cards) {
      if (wanted.has(key)) continue;
      item.remove();
      this.#cards.delete(key);
    }
    for (const [key, at] of wanted) this.#place(key, at, key === focused);
    this.#order(wanted);
    this.#showBlanks(Math.max(first, this.#keys.length), last);
    if (last > this.#keys.length) this.dispatchEvent(new CustomEvent("need", { detail: last }));
  }

  /** @param {string} key @param {number} at @param {boolean} focused */
  #place(key, at, focused) {
    const ticket = this.#ticketOf(key);
    const known = this.#cards.get(key);
    let card = known;
    if (!card || card.ticket !== ticket) {
      const item = this.#cardOf(ticket);
      const controls = /** @type {HTMLElement[]} */ ([...item.querySelectorAll("a, .card-menu")]);
      card = { item, ticket, controls, at: -1, of: -1 };
      if (this.#shown && (!known || known.ticket.version !== ticket.version)) this.#freshen(item, ticket);
      if (known) known.item.replaceWith(item);
      this.#cards.set(key, card);
      if (focused) controls[0].focus({ preventScroll: true });
    }
    this.#set(card, at);
    this.#tab(card, key === this.#current);
  }

  /** @param {{controls: HTMLElement[]}} card @param {boolean} leads whether Tab leads to it */
  #tab({ controls }, leads) {
    const index = leads ? 0 : -1;
    for (const control of controls) if (control.tabIndex !== index) control.tabIndex = index;
  }

  /** Only what is another than before is written: the browser looks at all that is. @param {any} card @param {number} at */
  #set(card, at) {
    if (card.at !== at) {
      card.at = at;
      card.item.style.transform = `translateY(${at * BoardColumn.#rowHeight}px)`;
      card.item.setAttribute("aria-posinset", String(at + 1));
    }
    if (card.of !== this.#count) {
      card.of = this.#count;
      card.item.setAttribute("aria-setsize", String(this.#count));
    }
  }

  /** The order that is read out is the order that is seen. @param {Map<string, number>} wanted */
  #order(wanted) {
    const ordered = [...wanted].sort(([, a], [, b]) => a - b).map(([key]) => this.#cards.get(key)?.item);
    const active = document.activeElement;
    let moved = false;
    ordered.forEach((item, i) => {
      if (item && this.list.children[i] !== item) {
        this.list.insertBefore(item, this.list.children[i] ?? null);
        moved = true;
      }
    });
    if (moved && active instanceof HTMLElement && active !== document.activeElement && this.list.contains(active)) {
      active.focus({ preventScroll: true });
    }
  }

  /** @param {number} first @param {number} last */
  #showBlanks(first, last) {
    const wanted = Math.max(0, last - first);
    while (this.#blanks.length > wanted) this.#blanks.pop()?.remove();
    while (this.#blanks.length < wanted) {
      const blank = h("li", { class: "card blank", "aria-hidden": "true" });
      this.#blanks.push(blank);
      this.list.append(blank);
    }
    this.#blanks.forEach((blank, i) => {
      blank.style.transform = `translateY(${(first + i) * BoardColumn.#rowHeight}px)`;
    });
  }

  /** A card that is new here, or has just changed, shows it for a moment. @param {HTMLElement} item @param {any} ticket */
  #freshen(item, ticket) {
    if (BoardColumn.isHurried || Date.now() - new Date(ticket.updated_at).getTime() > 15_000) return;
    item.classList.add("fresh");
    setTimeout(() => item.classList.remove("fresh"), FRESH_MS);
  }

  #measure() {
    const probe = h("li", { class: "card blank" });
    this.list.append(probe);
    const { height } = probe.getBoundingClientRect();
    BoardColumn.#usualHeight = this.scroller.clientHeight;
    probe.remove();
    return height && height + parseFloat(getComputedStyle(this.list).getPropertyValue("--card-gap"));
  }
}
customElements.define("board-column", BoardColumn);
