// What people do with tickets on the board: read them, write them, change them. It comes after the first cards, or when
// somebody is faster than that.

import { Actions } from "./actions.js";
import { compose } from "./compose.js";
import { Drawer } from "./drawer.js";
import { openFilters } from "./filters.js";
import { openHelp } from "./help.js";
import { t } from "./i18n.js";
import { openMenu } from "./menu.js";
import { PastBar } from "./then.js";

/** @typedef {"menu" | "people" | "priorities"} Menu what a menu of a card is about */

export class Work {
  #open;
  #me;

  /**
   * @param {{tickets: import("./tickets.js").Tickets, me: any, changed: () => void,
   *   open: (key: string, edit?: boolean) => void}} ways `changed`: another moment is to be shown
   */
  constructor({ tickets, me, changed, open }) {
    this.actions = new Actions(tickets, me);
    this.drawer = new Drawer({ tickets, actions: this.actions, me });
    this.past = new PastBar({ changed });
    this.help = openHelp;
    this.#me = me;
    this.#open = open;
  }

  /** @param {HTMLElement} anchor @param {string[]} labels to choose from */
  filters(anchor, labels) {
    return openFilters(anchor, labels, this.#me);
  }

  /** @param {{status: any, created: (key: string) => void}} options as of `compose` */
  create({ status, created }) {
    compose({ open: this.#open, created, status });
  }

  /** @param {HTMLElement} anchor @param {any} ticket @param {Menu} what @param {HTMLElement} back what gets the focus after it */
  async menu(anchor, ticket, what, back) {
    openMenu(anchor, await this.#itemsOf(ticket, what), { label: t("card.menu", { key: ticket.key }), back });
  }

  /** @param {any} ticket @param {Menu} what */
  async #itemsOf(ticket, what) {
    if (what === "people") return this.actions.people(ticket);
    if (what === "priorities") return this.actions.priorities(ticket);
    return this.actions.menu(ticket, { open: () => this.#open(ticket.key), edit: () => this.#open(ticket.key, true) });
  }
}
