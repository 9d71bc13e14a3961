// What people do with tickets on the board: read them, write them, change them. It comes after the first cards, or when
// somebody is faster than that; what is seldom wanted, when it is.

import { Actions } from "./actions.js";
import { compose } from "./compose.js";
import { Drawer } from "./drawer.js";
import { t } from "./i18n.js";
import { openMenu } from "./menu.js";

/** @typedef {"menu" | "people" | "priorities"} Menu what a menu of a card is about */

export class Work {
  /** The board as it was, once somebody has asked for it. @type {import("./then.js").PastBar | null} */ past = null;
  #ways;

  /**
   * @param {{tickets: import("./tickets.js").Tickets, me: any, changed: () => void, top: HTMLElement,
   *   open: (key: string, edit?: boolean) => void}} ways `changed`: another moment is to be shown; `top`: below which
   *   moments are chosen
   */
  constructor(ways) {
    const { tickets, me } = ways;
    this.actions = new Actions(tickets, me);
    this.drawer = new Drawer({ tickets, actions: this.actions, me });
    this.#ways = ways;
  }

  /** @param {HTMLElement} anchor @param {string[]} labels to choose from */
  async filters(anchor, labels) {
    const { openFilters } = await import("./filters.js");
    return openFilters(anchor, labels, this.#ways.me);
  }

  async help() {
    const { openHelp } = await import("./help.js");
    openHelp();
  }

  /** Choose another moment, or none any more. */
  async lookBack() {
    const { PastBar } = await import("./then.js");
    if (!this.past) {
      this.past = new PastBar({ changed: this.#ways.changed });
      this.#ways.top.after(this.past.element);
    }
    return this.past.open();
  }

  /** @param {{status: any, created: (key: string) => void}} options as of `compose` */
  create({ status, created }) {
    compose({ open: this.#ways.open, created, status });
  }

  /** @param {HTMLElement} anchor @param {any} ticket @param {Menu} what @param {HTMLElement} back what gets the focus after it */
  async menu(anchor, ticket, what, back) {
    openMenu(anchor, await this.#itemsOf(ticket, what), { label: t("card.menu", { key: ticket.key }), back });
  }

  /** @param {any} ticket @param {Menu} what */
  async #itemsOf(ticket, what) {
    if (what === "people") return this.actions.people(ticket);
    if (what === "priorities") return this.actions.priorities(ticket);
    const { open } = this.#ways;
    return this.actions.menu(ticket, { open: () => open(ticket.key), edit: () => open(ticket.key, true) });
  }
}
