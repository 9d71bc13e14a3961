// The drawer: one ticket, beside the board.

import { leaseOf } from "./actions.js";
import { ApiError, get, send, words } from "./api.js";
import { field } from "./ask.js";
import { avatar } from "./card.js";
import { attachmentList, commentList, facts, historyList, rawEvents, relationList, texts } from "./detail.js";
import { h, icon } from "./dom.js";
import { editor } from "./edit.js";
import { t } from "./i18n.js";
import { openMenu } from "./menu.js";
import { announce, tell, toast } from "./shell.js";

const PARTS = "history,comments,relations,attachments,lease";
const AGAIN_MS = 250;
const KINDS = ["note", "question", "answer", "decision"];
const RELATIONS = ["blocked_by", "blocks", "related", "duplicates", "duplicated_by"];

export class Drawer {
  /** @type {string | null} */ key = null;
  onclose = () => {};
  #tickets;
  #actions;
  #me;
  /** @type {any} */ #detail = null;
  #editing = false;
  #reading = 0;
  /** Comments that are half-written, by ticket. @type {Map<string, {comment: string, kind: string}>} */ #comments = new Map();
  /** What is done with the ticket when it comes, instead of showing it. @type {(() => Promise<void> | void) | null} */ #wanted = null;

  /** @param {{tickets: import("./tickets.js").Tickets, actions: import("./actions.js").Actions, me: any}} options */
  constructor({ tickets, actions, me }) {
    this.#tickets = tickets;
    this.#actions = actions;
    this.#me = me;
    this.head = h("div", { class: "drawer-head" });
    this.body = h("div", { class: "drawer-body" });
    this.foot = this.#commentForm();
    this.element = h("aside", { class: "drawer", hidden: true, tabindex: -1, "aria-labelledby": "drawer-title" }, this.head, this.body, this.foot);
    this.element.addEventListener("click", (/** @type {MouseEvent} */ event) => {
      const link = /** @type {HTMLElement} */ (event.target).closest("[data-ticket]");
      if (!link || event.metaKey || event.ctrlKey) return;
      event.preventDefault();
      dispatchEvent(new CustomEvent("open-ticket", { detail: link.dataset.ticket }));
    });
    this.element.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Escape" || event.defaultPrevented || event.isComposing) return;
      event.preventDefault();
      this.close();
    });
  }

  get isOpen() {
    return this.key !== null;
  }

  /** @param {string} key */
  open(key, { edit = false } = {}) {
    const other = key !== this.key;
    if (other) this.#turnTo(key);
    this.element.hidden = false;
    document.body.dataset.drawer = "open";
    if (other) {
      this.#detail = null;
      this.#editing = false;
      this.body.replaceChildren(h("p", { class: "quiet loading" }, t("loading")));
      this.head.replaceChildren(h("h2", { id: "drawer-title", class: "key" }, key), h("span", { class: "space" }), this.#closer());
      this.element.focus({ preventScroll: true });
    }
    if (edit && this.#detail) this.#edit();
    else if (edit) this.#editSoon();
    else this.#begin(() => this.#show());
  }

  /** A comment that is half-written waits until its ticket is opened again. @param {string | null} key */
  #turnTo(key) {
    const { comment, kind } = this.foot.elements;
    if (this.key && comment.value.trim()) this.#comments.set(this.key, { comment: comment.value, kind: kind.value });
    else if (this.key) this.#comments.delete(this.key);
    this.key = key;
    this.foot.reset();
    const kept = key && this.#comments.get(key);
    if (kept) [comment.value, kind.value] = [kept.comment, kept.kind];
  }

  /** Read the ticket for the first time. @param {() => Promise<void> | void} then */
  #begin(then) {
    const key = this.key;
    this.#wanted = then;
    this.#read().catch((error) => {
      if (key !== this.key || this.#detail) return;
      if (error instanceof ApiError && error.status === 401) tell(error);
      const notice = h(
        "div", { class: "notice error", role: "alert" }, h("span", null, words(error)),
        h("button", { type: "button", class: "button", onclick: () => (notice.remove(), this.#begin(then)) }, t("again")),
      );
      this.body.querySelector(".loading")?.remove();
      this.body.prepend(notice);
    });
  }

  /** The server is there again. */
  again() {
    /** @type {HTMLElement | null} */ (this.body.querySelector(":scope > .notice.error button"))?.click();
  }

  /** The summary can be written while the rest is on its way: else the first letters would be lost. */
  #editSoon() {
    const summary = h("input", { value: this.#tickets.get(this.key ?? "")?.summary ?? "", maxlength: 200, autocomplete: "off" });
    const before = summary.value;
    this.body.replaceChildren(h(
      "form", { class: "editor", onsubmit: (/** @type {SubmitEvent} */ event) => event.preventDefault() },
      field(t("field.summary"), summary, "wide"), h("p", { class: "quiet loading" }, t("loading")),
    ));
    summary.focus();
    this.#begin(() => {
      const typed = { value: summary.value, at: summary.selectionStart, to: summary.selectionEnd };
      this.#edit();
      const control = /** @type {HTMLInputElement | null} */ (this.body.querySelector("[name=summary]"));
      if (!control) return;
      if (typed.value !== before) control.value = typed.value;
      control.setSelectionRange(typed.at, typed.to);
    });
  }

  close() {
    if (!this.isOpen) return;
    this.onclose();
    this.#turnTo(null);
    this.#detail = null;
    this.#wanted = null;
    this.#editing = false;
    this.element.hidden = true;
    delete document.body.dataset.drawer;
  }

  /** The card may be newer than what is shown here. */
  refresh() {
    const card = this.key && this.#tickets.get(this.key);
    if (card && this.#detail && card.version > this.#detail.ticket.version) this.#later();
  }

  /** @param {any[]} events */
  hear(events) {
    const mine = events.filter((event) => event.subject === this.key || event.data?.other === this.key);
    if (!mine.length || !this.#detail) return;
    if (this.#editing) announce(t("edit.changed_meanwhile", { key: this.key }));
    this.#later();
  }

  #later() {
    if (this.#reading) return;
    this.#reading = setTimeout(() => {
      this.#reading = 0;
      if (this.isOpen) this.#read().catch(tell);
    }, AGAIN_MS);
  }

  async #read() {
    const key = this.key;
    let detail;
    try {
      detail = await get(`/api/v1/tickets/${encodeURIComponent(key ?? "")}?include=${PARTS}&history_limit=100`);
    } catch (error) {
      if (key !== this.key) return;
      if (error instanceof ApiError && (error.code === "deleted" || error.code === "not_found")) return this.#gone(error);
      throw error;
    }
    if (key !== this.key) return;
    this.#detail = detail;
    const show = this.#wanted ?? (() => this.#show());
    this.#wanted = null;
    if (!this.#editing) await show();
  }

  /** @param {ApiError} error */
  #gone(error) {
    const key = this.key ?? "";
    this.#detail = null;
    this.foot.hidden = true;
    this.body.replaceChildren(h(
      "div", { class: "notice warning" }, h("p", null, error.words),
      error.code === "deleted" && h("button", { type: "button", class: "button", onclick: () => this.#actions.restore(key).then(() => this.#read()).catch(tell) }, t("delete.restore")),
    ));
  }

  async #show() {
    const { ticket, comments, relations, attachments, history } = this.#detail;
    const [known, past] = await Promise.all([facts(ticket), historyList(history)]);
    if (ticket.key !== this.key) return;
    const raw = this.body.querySelector("details[open]:has(> .raw)");
    const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset?.keep;
    const [scroll, drafts] = [this.body.scrollTop, this.#drafts()];
    const tool = (/** @type {string} */ keep, /** @type {Node} */ picture, /** @type {string} */ words, /** @type {string} */ label, /** @type {() => any} */ items) => h(
      "button", { type: "button", class: "button plain", "data-keep": keep, "aria-haspopup": "menu",
        onclick: async (/** @type {any} */ event) => {
          const anchor = event.currentTarget;
          openMenu(anchor, await items(), { label });
        } }, h("span", { class: "hidden-text" }, `${label}: `), h("span", { "aria-hidden": "true" }, picture), words,
    );
    const card = this.#card(ticket);
    this.head.replaceChildren(
      h("span", { class: "key quiet" }, ticket.key), ticket.blocked ? h("span", { class: "blocked" }, icon("blocked"), t("card.blocked")) : "",
      h("span", { class: "space" }),
      h("button", { type: "button", class: "button", "data-keep": "edit", onclick: () => this.#edit() }, t("menu.edit")),
      h("button", { type: "button", class: "button plain icon-only", "data-keep": "menu", "aria-haspopup": "menu", "aria-label": t("card.menu", { key: ticket.key }),
        onclick: async (/** @type {any} */ event) => {
          const anchor = event.currentTarget;
          openMenu(anchor, (await this.#actions.menu(card, { open: () => {}, edit: () => this.#edit() })).slice(1), { label: t("card.menu", { key: ticket.key }) });
        } }, icon("more")),
      this.#closer(),
    );
    this.body.replaceChildren(
      h("h2", { id: "drawer-title", class: "drawer-title" }, ticket.summary),
      h(
        "div", { class: "row tools" },
        tool("status", icon(ticket.phase), ticket.status.name, t("field.status"), async () => (await this.#actions.menu(card, { open() {}, edit() {} })).filter((item) => item !== "line" && "checked" in item)),
        tool("priority", icon(`priority-${ticket.priority}`), t(`priority.${ticket.priority}`), t("field.priority"), () => this.#actions.priorities(card)),
        tool("assignee", ticket.person_in_charge ? avatar(ticket.person_in_charge.name) : icon("person"), ticket.person_in_charge?.name ?? t("board.nobody_assigned"), t("field.person_in_charge"), () => this.#actions.people(card)),
      ),
      ...texts(ticket), known,
      this.#section(t("detail.relations"), relations.length && relationList(relations, (relation) => this.#untie(relation)), this.#relationForm()),
      this.#section(t("detail.attachments"), attachments.length && attachmentList(attachments, (attachment) => this.#detach(attachment)), this.#attachmentForm()),
      h("section", null, h("h3", null, t("detail.comments")), comments.length ? commentList(comments) : h("p", { class: "quiet" }, t("detail.no_comments"))),
      h("section", null, h("h3", null, t("detail.history")), past, raw ?? rawEvents(ticket.key)),
    );
    this.#restore(drafts);
    this.body.scrollTop = scroll;
    this.foot.hidden = false;
    if (focused) /** @type {HTMLElement | null} */ (this.element.querySelector(`[data-keep="${focused}"]`))?.focus({ preventScroll: true });
  }

  /** What is half-written in the small forms outlives that the ticket is shown anew. */
  #drafts() {
    return [...this.body.querySelectorAll("details.adder")].map((each) => [...each.querySelectorAll("input, select")].map((/** @type {any} */ one) => one.value).concat(each.open));
  }

  /** @param {any[][]} drafts */
  #restore(drafts) {
    [...this.body.querySelectorAll("details.adder")].forEach((each, i) => {
      if (!drafts[i]) return;
      each.open = drafts[i].at(-1);
      [...each.querySelectorAll("input, select")].forEach((/** @type {any} */ one, at) => (one.value = drafts[i][at]));
    });
  }

  /** What the actions need to know, as cards have it. @param {any} ticket */
  #card(ticket) {
    return this.#tickets.get(ticket.key) ?? { ...ticket, assignee: ticket.person_in_charge, due: ticket.scheduled_completion_date };
  }

  /** @param {string} title @param {any} list @param {Node} form */
  #section(title, list, form) {
    return h("section", null, h("h3", null, title), list || null, form);
  }

  #closer() {
    return h("button", { type: "button", class: "button plain icon-only", "data-keep": "close", "aria-label": t("close"), onclick: () => this.close() }, icon("close"));
  }

  #edit() {
    if (!this.#detail || this.#editing) return;
    this.#editing = true;
    const { ticket } = this.#detail;
    const leave = () => {
      this.#editing = false;
      this.foot.hidden = false;
      this.#read().then(() => /** @type {HTMLElement | null} */ (this.element.querySelector('[data-keep="edit"]'))?.focus(), tell);
    };
    const form = editor(ticket, { holds: this.#actions.holds(ticket), done: leave, cancel: leave });
    this.head.replaceChildren(h("h2", { id: "drawer-title" }, t("edit.title", { key: ticket.key })), h("span", { class: "space" }), this.#closer());
    this.foot.hidden = true;
    this.body.replaceChildren(form);
    this.body.scrollTop = 0;
    /** @type {any} */ (form.elements.namedItem("summary")).focus();
  }

  #commentForm() {
    const text = h("textarea", { name: "comment", required: true, maxlength: 65_536, rows: 2, placeholder: t("comment.placeholder"), "aria-label": t("comment.placeholder") });
    const kind = h("select", { name: "kind", "aria-label": t("comment.kind") }, KINDS.map((each) => h("option", { value: each }, t(`comment.${each}`))));
    const submit = async (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      const { key } = this;
      if (!text.value.trim() || !key) return;
      try {
        await send("POST", `/api/v1/tickets/${key}/comments`, { comment: text.value, kind: kind.value });
        this.#comments.delete(key);
        announce(t("comment.done"));
        // What is open now may be another ticket.
        if (key !== this.key) return;
        form.reset();
        await this.#read();
      } catch (error) {
        tell(error);
      }
    };
    const form = h("form", { class: "drawer-foot", hidden: true, onsubmit: submit }, text, h("div", { class: "row" }, kind, h("span", { class: "space" }), h("button", { class: "button main" }, t("comment.go"))));
    text.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    return form;
  }

  #relationForm() {
    const relation = h("select", { "aria-label": t("relation.kind") }, RELATIONS.map((each) => h("option", { value: each }, t(`relation.${each}`))));
    const other = h("input", { required: true, maxlength: 40, placeholder: "TH-1", "aria-label": t("relation.other"), autocomplete: "off" });
    return this.#adder(t("relation.add"), [relation, other], () => ["relations", { relation: relation.value, other: other.value.trim() }]);
  }

  #attachmentForm() {
    const name = h("input", { required: true, maxlength: 255, placeholder: t("attachment.name"), "aria-label": t("attachment.name"), autocomplete: "off" });
    const url = h("input", { required: true, type: "url", pattern: "https?://.+", placeholder: "https://", "aria-label": t("attachment.url"), autocomplete: "off" });
    return this.#adder(t("attachment.add"), [name, url], () => ["attachments", { file_name: name.value.trim(), url: url.value.trim() }]);
  }

  /** A small form that unfolds. @param {string} words @param {Node[]} controls @param {() => [string, any]} what */
  #adder(words, controls, what) {
    const submit = async (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      const [place, body] = what();
      try {
        await send("POST", `/api/v1/tickets/${this.key}/${place}`, body, { lease: this.#lease() });
        details.open = false;
        for (const control of details.querySelectorAll("input")) control.value = "";
        await this.#read();
      } catch (error) {
        tell(error);
      }
    };
    const details = h("details", { class: "adder" }, h("summary", null, words), h("form", { class: "row", onsubmit: submit }, controls, h("button", { class: "button" }, t("add"))));
    return details;
  }

  #lease() {
    const ticket = this.#detail?.ticket;
    return ticket && this.#actions.holds(ticket) ? leaseOf(ticket.key) : undefined;
  }

  /** @param {any} relation */
  async #untie({ relation, ticket: other }) {
    await this.#undoable(`relations/${relation}/${other}`, t("relation.removed", { key: other }), ["relations", { relation, other }]);
  }

  /** @param {any} attachment */
  async #detach({ id, file_name, url }) {
    await this.#undoable(`attachments/${id}`, t("attachment.removed", { name: file_name }), ["attachments", { file_name, url }]);
  }

  /** @param {string} place @param {string} words @param {[string, any]} again what brings it back */
  async #undoable(place, words, [to, body]) {
    const key = this.key;
    try {
      await send("DELETE", `/api/v1/tickets/${key}/${place}`, undefined, { lease: this.#lease() });
      toast(words, { action: t("undo"), onaction: () => send("POST", `/api/v1/tickets/${key}/${to}`, body).then(() => this.#read()).catch(tell) });
      await this.#read();
    } catch (error) {
      tell(error);
    }
  }
}
