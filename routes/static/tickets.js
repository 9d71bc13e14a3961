// What pages know of tickets, kept up with the events: which columns there are, how many tickets each has, and those
// of them that were read.

/**
 * @typedef {{id: string, name: string}} Ref
 * @typedef {{key: string, version: number, summary: string, status: Ref, phase: string, assignee: Ref | null,
 *   requestor: Ref | null, account: Ref | null, category: Ref | null, channel: Ref | null, priority: string,
 *   due: string | null, labels: string[], progress: {percent: number, note: string | null} | null, blocked: boolean,
 *   lease: {holder: string, acquired_at: string, expires_at: string} | null, updated_at: string}} Ticket
 * @typedef {{assignee?: string[], priority?: string[], label?: string[], account?: string[], category?: string[]}} Filter
 *   ids, `none` for nobody. Values of one field are alternatives; fields narrow each other.
 * @typedef {{id: string, name: string, phase: string, statuses: string[], count: number, keys: string[],
 *   changed: number}} Column
 *   `keys`: of the tickets that were read, in the order that was chosen; `changed` grows with each change.
 */

export const PHASES = ["todo", "active", "waiting", "review", "done", "cancelled"];
export const PRIORITIES = ["urgent", "high", "medium", "low", "none"];

/** @param {string} key */
const numberOf = (key) => Number(key.slice(key.lastIndexOf("-") + 1));

/** @param {Ticket} a @param {Ticket} b */
const newestFirst = (a, b) =>
  a.updated_at < b.updated_at ? 1 : a.updated_at > b.updated_at ? -1 : numberOf(b.key) - numberOf(a.key);

/**
 * The orders of a column, as the server has them: what comes first, and how the API is asked for it. Tickets without a
 * date come last.
 * @type {Record<typeof import("./address.js").ORDERS[number], {compare: (a: Ticket, b: Ticket) => number, sort_order: "asc" | "desc"}>}
 */
export const ORDERS = {
  updated: { compare: newestFirst, sort_order: "desc" },
  priority: {
    compare: (a, b) => PRIORITIES.indexOf(a.priority) - PRIORITIES.indexOf(b.priority) || numberOf(b.key) - numberOf(a.key),
    sort_order: "desc",
  },
  due: {
    compare: (a, b) => ((a.due ?? "~") < (b.due ?? "~") ? -1 : (a.due ?? "~") > (b.due ?? "~") ? 1 : numberOf(a.key) - numberOf(b.key)),
    sort_order: "asc",
  },
  created: { compare: (a, b) => numberOf(b.key) - numberOf(a.key), sort_order: "desc" },
};

/**
 * The fields that filters ask for, as events write them.
 * @param {Ticket} ticket
 * @returns {Record<string, any>}
 */
const fieldsOf = (ticket) => ({
  status: ticket.status.id,
  phase: ticket.phase,
  assignee: ticket.assignee?.id ?? null,
  priority: ticket.priority,
  labels: ticket.labels,
  account: ticket.account?.id ?? null,
  category: ticket.category?.id ?? null,
});

/**
 * Whether a ticket passes.
 * @param {Filter} filter
 * @param {Record<string, any>} fields
 */
export function passes(filter, fields) {
  return Object.entries(filter).every(([name, wanted]) => {
    if (!wanted.length) return true;
    if (name === "label") return fields.labels.some((/** @type {string} */ label) => wanted.includes(label));
    return wanted.includes(fields[name] ?? "none");
  });
}

export class Tickets extends EventTarget {
  /** @type {Map<string, Ticket>} */ #tickets = new Map();
  /** @type {Map<string, number>} key → the version with which it was deleted */ #deleted = new Map();
  /** @type {Column[]} */ columns = [];
  /** @type {Filter} */ filter = {};
  /** @type {keyof typeof ORDERS} */ order = "updated";
  /** Whose tickets `needsMe` looks for: a user's id. @type {string | null} */ me = null;
  /** Whether the counts are to be read again: something changed of which the former state is not known. */
  uncertain = false;
  /** When that was changed which is known as of the newest event. */ #latest = "";

  /** @param {string} key @returns {Ticket | undefined} */
  get(key) {
    return this.#tickets.get(key);
  }

  get size() {
    return this.columns.reduce((sum, column) => sum + column.count, 0);
  }

  /** Every ticket that was read. */
  all() {
    return this.#tickets.values();
  }

  /** Those that wait for the person: theirs, and waiting for an answer or to be looked at. */
  needsMe() {
    if (this.me === null) return [];
    return [...this.#tickets.values()]
      .filter((ticket) => ticket.assignee?.id === this.me && (ticket.phase === "waiting" || ticket.phase === "review"))
      .sort(newestFirst)
      .map((ticket) => ticket.key);
  }

  /**
   * Begin anew with what the board's address answered.
   * @param {{columns: {status: Ref, phase: string, count: number, tickets: Ticket[]}[]}} board
   * @param {{group: string, words: (phase: string) => string}} options `group`: a column for each `status` or `phase`
   */
  load(board, { group, words }) {
    this.#tickets = new Map();
    this.#deleted = new Map();
    this.#latest = "";
    const found = new Map();
    for (const { status, phase, count, tickets } of board.columns) {
      const id = group === "phase" ? phase : status.id;
      const name = group === "phase" ? words(phase) : status.name;
      const column = found.get(id) ?? { id, name, phase, statuses: [], count: 0, keys: [], changed: 0 };
      column.statuses.push(status.id);
      column.count += count;
      for (const ticket of tickets) {
        this.#tickets.set(ticket.key, ticket);
        this.#see(ticket);
      }
      column.keys.push(...tickets.map((ticket) => ticket.key));
      found.set(id, column);
    }
    // As the work flows; statuses of one phase stay in their own order.
    this.columns = [...found.values()].sort((a, b) => PHASES.indexOf(a.phase) - PHASES.indexOf(b.phase));
    for (const column of this.columns) this.#sort(column);
    this.uncertain = false;
    this.#changed();
  }

  /** Take counts that were read again. @param {{columns: {status: Ref, count: number}[]}} board */
  recount(board) {
    this.uncertain = false;
    for (const column of this.columns) {
      const counted = board.columns.filter(({ status }) => column.statuses.includes(status.id));
      const count = counted.reduce((sum, each) => sum + each.count, 0);
      column.changed += Number(count !== column.count);
      column.count = count;
    }
    this.#changed();
  }

  /** Add tickets that were read besides: further ones of a column, or those that wait for me. @param {Ticket[]} tickets */
  add(tickets) {
    for (const ticket of tickets) {
      if ((this.#deleted.get(ticket.key) ?? 0) >= ticket.version) continue;
      const known = this.#tickets.get(ticket.key);
      if (known && known.version >= ticket.version) continue;
      // Read before the event of its change is heard, which then changes nothing any more.
      if (known) this.#recountOne(known, ticket);
      else if (ticket.updated_at > this.#latest) this.uncertain = true;
      this.#put(ticket);
    }
    this.#changed();
  }

  /**
   * Take what happened. Events that were heard before, or that what was read has in it already, change nothing.
   * @param {any[]} events
   */
  apply(events) {
    for (const event of events) {
      const ticket = event.data?.ticket;
      if (ticket) this.#take(event.type, ticket, event.data.changes ?? {});
    }
    this.#changed();
  }

  /**
   * Show a change before the server has answered. @param {string} key @param {Partial<Ticket>} change
   * @returns {() => void} takes it back, unless something newer has come
   */
  expect(key, change) {
    const before = this.#tickets.get(key);
    if (!before) return () => {};
    const expected = { ...before, ...change, updated_at: new Date().toISOString() };
    const move = (/** @type {Ticket} */ from, /** @type {Ticket} */ to) => {
      this.#recountOne(from, to);
      this.#put(to);
      this.#changed();
    };
    move(before, expected);
    return () => {
      if (this.#tickets.get(key) === expected) move(expected, before);
    };
  }

  /** @param {string} type @param {Ticket} ticket @param {Record<string, [any, any]>} changes */
  #take(type, ticket, changes) {
    const { key, version } = ticket;
    const known = this.#tickets.get(key);
    this.#see(ticket);
    if ((this.#deleted.get(key) ?? 0) >= version) return;
    if (type === "ticket.lease_renewed") {
      if (known?.lease) this.#put({ ...known, lease: ticket.lease });
      return;
    }
    if (known && known.version >= version) return;
    const after = fieldsOf(ticket);
    /** @type {Record<string, any> | null} */
    let before = known ? fieldsOf(known) : { ...after };
    if (!known) {
      for (const [name, [was]] of Object.entries(changes)) if (name in before) before[name] = was;
      // It may be counted already: what was read may be newer than this event.
      this.uncertain = true;
    }
    if (type === "ticket.created" || type === "ticket.restored") before = known ? before : null;
    if (before && passes(this.filter, before)) this.#count(before, -1);
    if (type === "ticket.deleted") {
      this.#deleted.set(key, version);
      this.#drop(key);
      return;
    }
    if (passes(this.filter, after)) {
      this.#count(after, 1);
      this.#put(ticket);
    } else if (after.assignee === this.me && this.me !== null) {
      this.#drop(key);
      this.#tickets.set(key, ticket); // hidden by the filter, and yet it may wait for the person
    } else {
      this.#drop(key);
    }
  }

  /** @param {Ticket} ticket */
  #see({ updated_at }) {
    if (updated_at > this.#latest) this.#latest = updated_at;
  }

  /** @param {Ticket} before @param {Ticket} after */
  #recountOne(before, after) {
    for (const [ticket, by] of /** @type {const} */ ([[before, -1], [after, 1]])) {
      if (passes(this.filter, fieldsOf(ticket))) this.#count(fieldsOf(ticket), by);
    }
  }

  /** @param {Record<string, any>} fields @param {number} by */
  #count(fields, by) {
    const column = this.columns.find((each) => each.statuses.includes(fields.status));
    if (!column) return;
    column.count = Math.max(0, column.count + by);
    column.changed += 1;
  }

  /** @param {Ticket} ticket */
  #put(ticket) {
    this.#tickets.set(ticket.key, ticket);
    const shown = passes(this.filter, fieldsOf(ticket));
    for (const column of this.columns) {
      const at = column.keys.indexOf(ticket.key);
      const belongs = shown && column.statuses.includes(ticket.status.id);
      if (at < 0 && !belongs) continue;
      if (at >= 0) column.keys.splice(at, 1);
      if (belongs) {
        column.keys.splice(this.#placeOf(ticket, column.keys), 0, ticket.key);
      }
      column.changed += 1;
    }
  }

  /** Before which of the keys, which are in order, a ticket comes. @param {Ticket} ticket @param {string[]} keys */
  #placeOf(ticket, keys) {
    const { compare } = ORDERS[this.order];
    let [low, high] = [0, keys.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (compare(ticket, /** @type {Ticket} */ (this.#tickets.get(keys[middle]))) < 0) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** @param {string} key */
  #drop(key) {
    this.#tickets.delete(key);
    for (const column of this.columns) {
      const at = column.keys.indexOf(key);
      if (at < 0) continue;
      column.keys.splice(at, 1);
      column.changed += 1;
    }
  }

  /** @param {Column} column */
  #sort(column) {
    const ticket = (/** @type {string} */ key) => /** @type {Ticket} */ (this.#tickets.get(key));
    column.keys.sort((a, b) => ORDERS[this.order].compare(ticket(a), ticket(b)));
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
