// What can be done to a ticket from the board, and taking it back.

import { ApiError, send } from "./api.js";
import { answered, confirmed } from "./ask.js";
import { avatar, nameOf } from "./card.js";
import { icon } from "./dom.js";
import { t } from "./i18n.js";
import { choices } from "./refs.js";
import { tell, toast } from "./shell.js";
import { PRIORITIES } from "./tickets.js";

const LEASES = "taskhub.leases";

/** @typedef {import("./tickets.js").Ticket} Ticket */

/** The tokens of leases that were taken here, by key. @returns {Record<string, {token: string, holder: string}>} */
const leases = () => JSON.parse(localStorage.getItem(LEASES) ?? "{}");

/** @param {string} key @param {string | null} token @param {string} holder */
function keepLease(key, token, holder = "") {
  const { [key]: _, ...others } = leases();
  localStorage.setItem(LEASES, JSON.stringify(token === null ? others : { ...others, [key]: { token, holder } }));
}

/** The token that a write to the ticket has to show. @param {string} key @returns {string | undefined} */
export const leaseOf = (key) => leases()[key]?.token;

/** What a person does to tickets. */
export class Actions {
  /** @type {{batch?: string, deleted?: string}[]} what can be taken back: changes, and tickets that were deleted */ #done = [];
  /** The change that is on its way. @type {Promise<void>} */ #changing = Promise.resolve();
  #tickets;
  #me;

  /** @param {import("./tickets.js").Tickets} tickets @param {{actor: string, user: any}} me */
  constructor(tickets, me) {
    this.#tickets = tickets;
    this.#me = me;
  }

  /** Whether the lease of a ticket is one that was taken here. @param {{key: string, lease: any}} ticket */
  holds(ticket) {
    return ticket.lease !== null && leases()[ticket.key]?.holder === ticket.lease.holder;
  }

  /**
   * Change a ticket as one step that can be taken back.
   * @param {Ticket} ticket
   * @param {Record<string, any>} change as the API takes it
   * @param {Partial<Ticket>} expected what the card shows meanwhile
   * @param {string} words what was done
   */
  change(ticket, change, expected, words) {
    this.#changing = this.#change(ticket, change, expected, words);
    return this.#changing;
  }

  /** @param {Ticket} ticket @param {Record<string, any>} change @param {Partial<Ticket>} expected @param {string} words */
  async #change(ticket, change, expected, words) {
    const takeBack = this.#tickets.expect(ticket.key, expected);
    const token = leaseOf(ticket.key);
    const item = { ticket_id: ticket.key, ...change, ...(token && this.holds(ticket) && { lease_token: Number(token) }) };
    try {
      const { batch_id: batch } = await send("POST", "/api/v1/tickets/bulk", { items: [item] });
      if (batch === null) return;
      this.#done.push({ batch });
      toast(words, { action: t("undo"), onaction: () => this.undo(batch) });
    } catch (error) {
      takeBack();
      this.#explain(error, ticket, () => this.change(/** @type {Ticket} */ (this.#tickets.get(ticket.key) ?? ticket), change, expected, words));
    }
  }

  /** Take back a change, or the last one. @param {string} [given] */
  async undo(given) {
    await this.#changing;
    const last = given === undefined ? this.#done.at(-1) : { batch: given };
    if (last === undefined) return toast(t("undo.nothing"));
    if (last.deleted) return this.restore(last.deleted);
    const { batch } = last;
    this.#done = this.#done.filter((each) => each.batch !== batch);
    const tokens = Object.fromEntries(Object.entries(leases()).map(([key, { token }]) => [key, Number(token)]));
    try {
      await send("POST", `/api/v1/batches/${batch}/undo`, { lease_tokens: tokens });
      toast(t("undo.done"));
    } catch (error) {
      tell(error);
    }
    return undefined;
  }

  /** @param {Ticket} ticket @param {{id: string, name: string, phase: string}} status */
  async move(ticket, status) {
    if (ticket.status.id === status.id) return;
    /** @type {Record<string, any>} */
    const change = { status: status.id };
    if (status.phase === "waiting") {
      const reason = await answered(t("move.waiting", { key: ticket.key }), t("field.waiting_reason"), t("move.go"));
      if (reason === null) return;
      change.waiting_reason = reason;
    }
    const expected = { status: { id: status.id, name: status.name }, phase: status.phase };
    await this.change(ticket, change, expected, t("move.done", { key: ticket.key, status: status.name }));
  }

  /** @param {Ticket} ticket @param {{id: string, name: string} | null} user */
  assign(ticket, user) {
    const words = user ? t("assign.done", { key: ticket.key, name: user.name }) : t("assign.nobody", { key: ticket.key });
    return this.change(ticket, { person_in_charge: user?.id ?? null }, { assignee: user }, words);
  }

  /** @param {Ticket} ticket @param {string} priority */
  prioritise(ticket, priority) {
    const words = t("prioritise.done", { key: ticket.key, priority: t(`priority.${priority}`) });
    return this.change(ticket, { priority }, { priority }, words);
  }

  /** Claim a ticket, or take it over from its holder. @param {Ticket} ticket @returns {Promise<boolean>} whether that worked */
  async claim(ticket, takeOver = false) {
    if (takeOver && ticket.lease) {
      const holder = nameOf(ticket.lease.holder);
      const agreed = await confirmed(t("take_over.title", { key: ticket.key }), t("take_over.about", { holder }), t("take_over.go"));
      if (!agreed) return false;
    }
    try {
      const claimed = await send("PUT", `/api/v1/tickets/${ticket.key}/lease`, { take_over: takeOver });
      keepLease(ticket.key, String(claimed.lease_token), this.#me.actor);
      toast(t("claim.done", { key: ticket.key }), { action: t("claim.release"), onaction: () => this.release(ticket.key) });
      return true;
    } catch (error) {
      this.#explain(error, ticket);
      return false;
    }
  }

  /** @param {string} key */
  async release(key) {
    try {
      await send("DELETE", `/api/v1/tickets/${key}/lease`, undefined, { lease: leaseOf(key) });
      keepLease(key, null);
      toast(t("release.done", { key }));
    } catch (error) {
      tell(error);
    }
  }

  /** @param {{key: string, version: number, lease: any}} ticket @returns {Promise<boolean>} whether it is deleted */
  async remove(ticket) {
    const { key } = ticket;
    if (!(await confirmed(t("delete.title", { key }), t("delete.about"), t("delete.go")))) return false;
    const removing = send("DELETE", `/api/v1/tickets/${key}`, undefined, { lease: this.holds(ticket) ? leaseOf(key) : undefined })
      .then(() => void this.#done.push({ deleted: key }));
    // Its card goes with the event, which may come before the answer; who takes it back then means this.
    this.#changing = removing.catch(() => {});
    try {
      await removing;
      toast(t("delete.done", { key }), { action: t("delete.restore"), onaction: () => this.restore(key) });
      return true;
    } catch (error) {
      this.#explain(error, ticket);
      return false;
    }
  }

  /** @param {string} key */
  async restore(key) {
    this.#done = this.#done.filter((each) => each.deleted !== key);
    try {
      await send("POST", `/api/v1/tickets/${key}/restore`);
      toast(t("restore.done", { key }));
    } catch (error) {
      tell(error);
    }
  }

  /**
   * The menu of a card: the twin of every drag, and what else is often done.
   * @param {Ticket} ticket
   * @param {{open: () => void, edit: () => void}} ways
   * @returns {Promise<import("./menu.js").Item[]>}
   */
  async menu(ticket, { open, edit }) {
    const statuses = await choices("statuses");
    /** @type {import("./menu.js").Item[]} */
    const items = [{ label: t("menu.open"), run: open }, { label: t("menu.edit"), run: edit }, "line", { title: t("menu.move") }];
    for (const status of statuses) {
      items.push({
        label: status.name, icon: icon(status.phase ?? "todo"), checked: status.id === ticket.status.id,
        run: () => this.move(ticket, /** @type {any} */ (status)),
      });
    }
    items.push("line");
    if (ticket.lease === null) items.push({ label: t("menu.claim"), icon: icon("person"), run: () => this.claim(ticket) });
    else if (this.holds(ticket)) items.push({ label: t("menu.release"), icon: icon("person"), run: () => this.release(ticket.key) });
    else items.push({ label: t("menu.take_over"), icon: icon("person"), run: () => this.claim(ticket, true) });
    items.push({ label: t("menu.delete"), icon: icon("close"), run: () => this.remove(ticket) });
    return items;
  }

  /** @param {Ticket} ticket @returns {Promise<import("./menu.js").Item[]>} */
  async people(ticket) {
    const users = await choices("users");
    return [
      { label: t("board.nobody_assigned"), checked: ticket.assignee === null, run: () => this.assign(ticket, null) },
      ...users.map((user) => ({
        label: user.name, icon: avatar(user.name, { agent: user.kind !== "human" }), checked: user.id === ticket.assignee?.id,
        run: () => this.assign(ticket, { id: user.id, name: user.name }),
      })),
    ];
  }

  /** @param {Ticket} ticket @returns {import("./menu.js").Item[]} */
  priorities(ticket) {
    return PRIORITIES.map((priority) => ({
      label: t(`priority.${priority}`), icon: icon(`priority-${priority}`), checked: priority === ticket.priority,
      run: () => this.prioritise(ticket, priority),
    }));
  }

  /** @param {unknown} error @param {any} ticket @param {() => void} [again] */
  #explain(error, ticket, again) {
    // A batch that failed says why in its one result.
    const inner = error instanceof ApiError ? error.problem.result?.results[0]?.error : undefined;
    const cause = inner ? new ApiError(409, { code: inner.code, detail: inner.message }) : error;
    if (cause instanceof ApiError && cause.code === "lease_held" && ticket.lease) {
      toast(cause.words, {
        error: true, action: t("menu.take_over"),
        onaction: async () => (await this.claim(ticket, true)) && again?.(),
      });
    } else {
      tell(cause);
    }
  }
}
