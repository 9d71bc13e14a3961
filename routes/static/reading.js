// Reading the board: all of it as the address says, further cards of a column, and its counts again.

import * as address from "./address.js";
import { get } from "./api.js";
import { boardPath, isPartial } from "./early.js";
import { t } from "./i18n.js";
import { ORDERS } from "./tickets.js";

const PAGE = 100;
const AGAIN_MS = 2500;
const SEARCH_AGAIN_MS = 1000;

export class Reading {
  /** The event up to which the board was read. */ position = "";
  /** @type {{id: string, name: string, phase: string}[]} */ statuses = [];
  #tickets;
  #moment;
  #failed;
  /** @type {Map<string, string | null>} column → where its next page begins; null when it is whole */ #cursors = new Map();
  /** @type {Set<string>} columns of which more is on its way */ #fetching = new Set();
  /** What is on its way of the board as it is shown. */ #current = new AbortController();
  /** @type {any[] | null} events that came while the board is read; null when it is not */ #missed = null;
  #recounting = 0;
  #searching = 0;

  /**
   * @param {{tickets: import("./tickets.js").Tickets, moment: () => string | null, failed: (error: unknown) => void}} options
   *   `moment`: that is shown, RFC 3339; null: now. `failed`: it could not be read again
   */
  constructor({ tickets, moment, failed }) {
    this.#tickets = tickets;
    this.#moment = moment;
    this.#failed = failed;
  }

  /** Read the board as the address says, and begin anew with it. Rejects with ApiError. */
  async load() {
    this.#current.abort();
    this.#current = new AbortController();
    const { signal } = this.#current;
    this.#missed = [];
    const moment = this.#moment();
    const words = moment ? null : address.value("q");
    const group = address.value("group") ?? "status";
    const board = await get(boardPath(moment), { signal });
    // After the board: what it finds is not older than the position from which on events are heard.
    const found = words ? await this.#search(words, signal) : null;
    if (signal.aborted) return;
    const tickets = this.#tickets;
    this.statuses = board.columns.map((/** @type {any} */ { status, phase }) => ({ ...status, phase }));
    this.#cursors = new Map();
    tickets.order = address.order();
    if (isPartial(moment)) for (const column of board.columns) if (column.count > column.tickets.length) column.tickets = [];
    tickets.filter = address.filterOf(tickets.me);
    tickets.load(found ? this.#byStatus(found) : board, { group, words: (phase) => t(`phase.${phase}`) });
    this.position = board.position;
    // What happened while it was on its way may not be in it.
    if (!moment) this.#apply(this.#missed ?? []);
    this.#missed = null;
    if (tickets.me !== null && !moment) await this.#loadMine(signal);
  }

  /** Read further cards of a column, if there are any. @param {string} id */
  async more(id) {
    const column = this.#tickets.columns.find((each) => each.id === id);
    if (!column || this.#fetching.has(id) || this.#cursors.get(id) === null || this.#moment() || address.value("q")) return;
    this.#fetching.add(id);
    const { signal } = this.#current;
    try {
      const query = address.query();
      const { order } = this.#tickets;
      const wanted = {
        status: column.statuses.join(","), show_completed: "true", sort_by: order, sort_order: ORDERS[order].sort_order,
        limit: String(PAGE), cursor: this.#cursors.get(id),
      };
      for (const [name, value] of Object.entries(wanted)) if (value) query.set(name, value);
      const page = await get(`/api/v1/tickets?${query}`, { signal });
      this.#cursors.set(id, page.next_cursor);
      this.#tickets.add(page.tickets);
    } catch {
      // What is still missing then asks again.
      if (!signal.aborted) setTimeout(() => this.#tickets.dispatchEvent(new Event("change")), AGAIN_MS);
    } finally {
      this.#fetching.delete(id);
    }
  }

  /** Counts are what the server says: of tickets that were never read, it alone knows what they were. */
  recount() {
    this.#recounting ||= setTimeout(async () => {
      this.#recounting = 0;
      if (this.#moment() || address.value("q")) return;
      const query = address.query();
      query.set("limit", "1");
      const { signal } = this.#current;
      try {
        this.#tickets.recount(await get(`/api/v1/board?${query}`, { signal }));
      } catch {
        if (!signal.aborted) this.recount();
      }
    }, AGAIN_MS);
  }

  /** Take what happened now. @param {any[]} events */
  hear(events) {
    this.#missed?.push(...events);
    if (!this.#moment() && this.#tickets.columns.length) this.#apply(events);
  }

  /** @param {any[]} events */
  #apply(events) {
    if (!address.value("q")) return this.#tickets.apply(events);
    // Which others it finds now, only the server knows.
    this.#tickets.apply(events.filter((event) => this.#tickets.get(event.subject)));
    if (events.length) {
      this.#searching ||= setTimeout(() => {
        this.#searching = 0;
        this.load().catch(this.#failed);
      }, SEARCH_AGAIN_MS);
    }
    return undefined;
  }

  /** @param {string} words @param {AbortSignal} signal @returns {Promise<any[]>} the tickets that have them */
  async #search(words, signal) {
    const query = address.query();
    for (const [name, value] of Object.entries({ query: words, show_completed: "true", limit: String(PAGE) })) query.set(name, value);
    return (await get(`/api/v1/tickets?${query}`, { signal })).tickets;
  }

  /** What a search found, as the board's address answers. @param {any[]} found */
  #byStatus(found) {
    return {
      columns: this.statuses.map(({ phase, ...status }) => {
        const tickets = found.filter((ticket) => ticket.status.id === status.id);
        return { status, phase, count: tickets.length, tickets };
      }),
    };
  }

  /** @param {AbortSignal} signal */
  async #loadMine(signal) {
    const query = new URLSearchParams({ person_in_charge: this.#tickets.me ?? "", phase: "waiting,review", limit: String(PAGE) });
    this.#tickets.add((await get(`/api/v1/tickets?${query}`, { signal })).tickets);
  }
}
