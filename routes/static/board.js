// The board's page: reads it, follows the stream, and puts bar, columns, drawer and keys together.

import { Actions } from "./actions.js";
import * as address from "./address.js";
import { ApiError, get } from "./api.js";
import { bar, whoAmI } from "./bar.js";
import { card, tick } from "./card.js";
import { BoardColumn } from "./column.js";
import { compose } from "./compose.js";
import { h } from "./dom.js";
import { allowDrops } from "./drag.js";
import { Drawer } from "./drawer.js";
import { commands, openHelp } from "./help.js";
import { t } from "./i18n.js";
import { followKeys } from "./keys.js";
import { openMenu } from "./menu.js";
import { choices, forget } from "./refs.js";
import { headers } from "./session.js";
import { announce, connection, start, tell, toast } from "./shell.js";
import { openStream } from "./stream.js";
import { PastBar } from "./then.js";
import { ORDERS, Tickets } from "./tickets.js";

const FIRST_CARDS = 25;
const PAGE = 100;
const PAST_CARDS = 100;
const RECOUNT_MS = 2500;
const SEARCH_AGAIN_MS = 1000;
// So many changes in so long.
const HURRIED = 15;
const PACE_MS = 1000;
const SPOKEN_EVERY_MS = 10_000;
const NEEDS_YOU = "needs-you";
const FOLDED = "taskhub.folded";

// On its way while it is found out who asks; who has to sign in first asks again.
/** @type {Promise<any> | null} */
let early = readBoard(null).catch(() => null);
const me = await start();
const tickets = new Tickets();
const actions = new Actions(tickets, me);
const stream = openStream({ url: "/events/stream?batch=100&coalesce=ticket", headers: headers() });
connection().follow(stream);

const main = /** @type {HTMLElement} */ (document.querySelector("main"));
const columns = h("div", { class: "columns" });
const picker = h("div", { class: "column-picker", role: "group", "aria-label": t("board.columns") });
const emptiness = h("div", { class: "board-empty", hidden: true });
const past = new PastBar({ changed: () => load().catch(failed) });
const drawer = new Drawer({ tickets, actions, me });
/** @type {Map<string, BoardColumn>} */
const elements = new Map();
/** @type {Map<string, string | null>} column → where its next page begins; null when it is whole */
let cursors = new Map();
/** @type {AbortController} */
let reading = new AbortController();
/** @type {any[] | null} events that came while the board is read; null when it is not */
let missed = null;
/** The event up to which the board was read. */
let position = "";
/** @type {{status: any, phase: string}[]} */
let statuses = [];
/** @type {{column: string, key: string} | null} the card that keys are about */
let current = null;
/** @type {string | null} a ticket that was written here, and is about to appear */
let expected = null;

tickets.me = me.user?.id ?? null;
const ways = {
  create: () => compose({ open: (key) => open(key), created: appear, status: statuses.find(({ id }) => id === currentColumn()?.dataset.column) }),
  help: openHelp,
  then: () => past.open(),
};
main.append(
  bar({ labels: knownLabels, me, ...ways }), past.element, picker,
  h("div", { class: "stage" }, columns, emptiness, drawer.element),
);

/** Read the board as the address says, and begin anew with it. */
async function load() {
  reading.abort();
  reading = new AbortController();
  const { signal } = reading;
  missed = [];
  const words = address.value("q");
  const group = address.value("group") ?? "status";
  const asked = past.time ? null : early;
  early = null;
  const read = (await asked) ?? (await readBoard(past.time, signal));
  let board = read;
  statuses = board.columns.map((/** @type {any} */ { status, phase }) => ({ ...status, phase }));
  if (words && !past.time) board = await search(words, signal);
  if (signal.aborted) return;
  cursors = new Map();
  tickets.order = address.order(ORDERS);
  if (isPartial(past.time)) for (const column of board.columns) if (column.count > column.tickets.length) column.tickets = [];
  tickets.filter = address.filterOf(tickets.me);
  tickets.load(board, { group, words: (phase) => t(`phase.${phase}`) });
  position = read.position;
  // What happened while it was on its way may not be in it.
  if (!past.time) hear(missed);
  missed = null;
  if (tickets.me !== null && !past.time) await loadMine(signal);
}

/** Whether the board's address, which has the last changed, does not have the first of each column. */
function isPartial(/** @type {string | null} */ moment) {
  return address.order(ORDERS) !== "updated" && !moment && !address.value("q");
}

/** @param {string | null} moment that it is to be shown as of @param {AbortSignal} [signal] */
function readBoard(moment, signal) {
  const query = address.query();
  if (moment) query.set("as_of", moment);
  query.set("limit", String(moment ? PAST_CARDS : address.value("q") || isPartial(moment) ? 1 : FIRST_CARDS));
  return get(`/api/v1/board?${query}`, { signal });
}

/** What a search finds, by status. @param {string} words @param {AbortSignal} signal */
async function search(words, signal) {
  const query = address.query();
  for (const [name, value] of Object.entries({ query: words, show_completed: "true", limit: String(PAGE) })) query.set(name, value);
  const { tickets: found } = await get(`/api/v1/tickets?${query}`, { signal });
  return {
    columns: statuses.map(({ phase, ...status }) => {
      const here = found.filter((/** @type {any} */ ticket) => ticket.status.id === status.id);
      return { status, phase, count: here.length, tickets: here };
    }),
  };
}

/** @param {AbortSignal} signal */
async function loadMine(signal) {
  const query = new URLSearchParams({ person_in_charge: tickets.me ?? "", phase: "waiting,review", limit: String(PAGE) });
  tickets.add((await get(`/api/v1/tickets?${query}`, { signal })).tickets);
}

/** @type {Set<string>} */
const fetching = new Set();

/** Read further cards of a column. @param {string} id */
async function more(id) {
  const column = tickets.columns.find((each) => each.id === id);
  if (!column || fetching.has(id) || cursors.get(id) === null || past.time || address.value("q")) return;
  fetching.add(id);
  const { signal } = reading;
  try {
    const query = address.query();
    const { order } = tickets;
    const wanted = {
      status: column.statuses.join(","), show_completed: "true", sort_by: order, sort_order: ORDERS[order].sort_order,
      limit: String(PAGE), cursor: cursors.get(id),
    };
    for (const [name, value] of Object.entries(wanted)) if (value) query.set(name, value);
    const page = await get(`/api/v1/tickets?${query}`, { signal });
    cursors.set(id, page.next_cursor);
    tickets.add(page.tickets);
  } catch (error) {
    if (!signal.aborted) setTimeout(render, RECOUNT_MS);
  } finally {
    fetching.delete(id);
  }
}

let recounting = 0;
/** Counts are what the server says: of tickets that were never read, it alone knows what they were. */
function recount() {
  if (recounting) return;
  recounting = setTimeout(async () => {
    recounting = 0;
    if (past.time || address.value("q")) return;
    const query = address.query();
    query.set("limit", "1");
    const { signal } = reading;
    try {
      tickets.recount(await get(`/api/v1/board?${query}`, { signal }));
    } catch {
      if (!signal.aborted) recount();
    }
  }, RECOUNT_MS);
}

/** @param {any[]} events */
function hear(events) {
  if (address.value("q")) {
    // Which others it finds now, only the server knows.
    tickets.apply(events.filter((event) => tickets.get(event.subject)));
    if (events.length) searchAgain();
  } else tickets.apply(events);
}

let searching = 0;
function searchAgain() {
  searching ||= setTimeout(() => {
    searching = 0;
    load().catch(failed);
  }, SEARCH_AGAIN_MS);
}

/** Make the columns that the board has now, in its order. */
function arrange() {
  const wanted = new Map();
  if (!past.time && !address.value("q") && (tickets.me !== null || !me.authenticated)) {
    wanted.set(NEEDS_YOU, { id: NEEDS_YOU, name: t("board.needs_you"), phase: null });
  }
  for (const column of tickets.columns) wanted.set(column.id, column);
  for (const [id, element] of elements) {
    if (wanted.has(id) && element.dataset.name === wanted.get(id).name) continue;
    element.remove();
    elements.delete(id);
  }
  let at = 0;
  for (const column of wanted.values()) {
    const element = elements.get(column.id) ?? makeColumn(column);
    if (columns.children[at] !== element) columns.insertBefore(element, columns.children[at] ?? null);
    at += 1;
  }
  if (!columns.querySelector("[data-current]")) choose(tickets.columns[0]?.id);
}

/** @param {any} column */
function makeColumn({ id, name, phase }) {
  const element = new BoardColumn();
  element.setUp({
    id, name, phase, tinted: id === NEEDS_YOU, ticketOf: (key) => tickets.get(key),
    cardOf: (ticket) => card(ticket, address.hrefOf(ticket.key), Boolean(past.time)),
  });
  elements.set(id, element);
  element.folded = folded().has(id) || (phase === "cancelled" && !folded().has(`+${id}`));
  element.fold.addEventListener("click", () => {
    element.folded = !element.folded;
    remember(id, element.folded);
  });
  element.addEventListener("need", () => more(id));
  if (id === NEEDS_YOU) fillNeedsYou(element).catch(tell);
  return element;
}

const folded = () => new Set(JSON.parse(localStorage.getItem(FOLDED) ?? "[]"));

/** @param {string} id @param {boolean} hidden */
function remember(id, hidden) {
  const kept = folded();
  kept.delete(hidden ? `+${id}` : id);
  kept.add(hidden ? id : `+${id}`);
  localStorage.setItem(FOLDED, JSON.stringify([...kept]));
}

/** @param {BoardColumn} element */
async function fillNeedsYou(element) {
  if (tickets.me !== null) {
    element.empty.replaceChildren(h("p", { class: "quiet" }, t("board.nothing_waits")));
    return;
  }
  element.empty.replaceChildren(h("p", { class: "quiet" }, t("board.who_about")), ...[await whoAmI()].filter((each) => each !== null));
}

/** A ticket that was written here is the current one as soon as it is there. @param {string} key */
function appear(key) {
  expected = key;
  render();
}

let scheduled = 0;
function schedule() {
  scheduled ||= requestAnimationFrame(() => {
    scheduled = 0;
    render();
  });
}

let recent = 0;
const isHurried = () => recent > HURRIED;

/** On a narrow screen one column is there at a time. @param {string | undefined} id */
function choose(id) {
  for (const [each, element] of elements) element.toggleAttribute("data-current", each === id);
  for (const button of picker.children) button.setAttribute("aria-pressed", String(button.dataset.column === id));
}

/** What each column shows. @type {WeakMap<BoardColumn, {column: any, changed: number}>} */
const drawn = new WeakMap();
/** When each column was drawn last. @type {WeakMap<any, number>} */
const turns = new WeakMap();
let turn = 0;

function render() {
  arrange();
  const changed = tickets.columns.filter((column) => {
    const element = elements.get(column.id);
    const before = element && drawn.get(element);
    return element && (before?.column !== column || before.changed !== column.changed);
  });
  // With much to draw, a column at a time: what people do has its turn between them.
  changed.sort((a, b) => (turns.get(a) ?? 0) - (turns.get(b) ?? 0));
  const now = isHurried() ? changed.slice(0, 1) : changed;
  for (const column of now) {
    const element = /** @type {BoardColumn} */ (elements.get(column.id));
    drawn.set(element, { column, changed: column.changed });
    turns.set(column, ++turn);
    element.show(column.keys, column.count);
  }
  if (now.length < changed.length) schedule();
  const mine = tickets.needsMe();
  elements.get(NEEDS_YOU)?.show(mine, mine.length);
  const title = `${mine.length ? `(${mine.length}) ` : ""}${t("nav.board")} · TaskHub`;
  if (document.title !== title) document.title = title;
  settleCurrent();
  showPicker();
  showEmptiness();
  drawer.refresh();
}

/** The card that keys are about is always one that is there: Tab leads to it. */
function settleCurrent() {
  const appeared = expected && tickets.columns.find(({ keys }) => keys.includes(expected ?? ""));
  if (appeared && expected && !document.querySelector("dialog[open]")) {
    setCurrent(appeared.id, expected, true);
    expected = null;
    return;
  }
  const here = current && elements.get(current.column)?.keys.includes(current.key);
  if (!here) {
    // It may have moved: then the keys, and the focus if it had it, go along.
    const column = current && tickets.columns.find(({ keys }) => keys.includes(current?.key ?? ""));
    const first = tickets.columns.find(({ keys }) => keys.length);
    if (column && current) setCurrent(column.id, current.key);
    else if (first) setCurrent(first.id, first.keys[0]);
  }
}

/** @param {string} column @param {string} key */
function setCurrent(column, key, focus = hadFocus()) {
  if (current && current.column !== column) {
    const before = elements.get(current.column);
    if (before) before.current = null;
    before?.show(before.keys, before.count);
  }
  current = { column, key };
  const element = elements.get(column);
  if (!element) return;
  element.current = key;
  if (focus) {
    choose(column);
    element.focusCard(key);
  } else element.show(element.keys, element.count);
}

let cardHadFocus = false;
columns.addEventListener("focusin", (/** @type {FocusEvent} */ event) => {
  const item = /** @type {HTMLElement} */ (event.target).closest("li[data-key]");
  cardHadFocus = item !== null;
  const column = item?.closest("board-column");
  if (item && column && (current?.key !== item.dataset.key || current?.column !== column.dataset.column)) {
    setCurrent(column.dataset.column, item.dataset.key, false);
  }
});
columns.addEventListener("focusout", (/** @type {FocusEvent} */ event) => {
  // A card that is taken away loses the focus to nothing; only who leaves by themselves has left.
  if (event.relatedTarget) cardHadFocus = false;
});
addEventListener("pointerdown", () => (cardHadFocus = false), true);
const hadFocus = () => cardHadFocus && (document.activeElement === document.body || columns.contains(document.activeElement));

const currentColumn = () => (current ? elements.get(current.column) : undefined);
const currentTicket = () => (current ? tickets.get(current.key) : undefined);

function showPicker() {
  const shown = [...elements.values()];
  if (picker.children.length !== shown.length || shown.some((each, i) => picker.children[i].dataset.column !== each.dataset.column)) {
    picker.replaceChildren(...shown.map((element) => h(
      "button", { type: "button", class: "button", "data-column": element.dataset.column, "aria-pressed": String(element.hasAttribute("data-current")),
        onclick: () => choose(element.dataset.column) },
      element.dataset.name, h("span", { class: "count number" }),
    )));
  }
  shown.forEach((element, i) => {
    const count = picker.children[i].querySelector(".count");
    if (count && count.textContent !== String(element.count)) count.textContent = String(element.count);
  });
}

function showEmptiness() {
  const narrowed = Boolean(address.value("q") || Object.keys(address.filters()).length);
  const empty = tickets.columns.length > 0 && tickets.size === 0;
  emptiness.hidden = !empty;
  columns.hidden = empty;
  if (!empty || emptiness.dataset.narrowed === String(narrowed)) return;
  emptiness.dataset.narrowed = String(narrowed);
  emptiness.replaceChildren(...(narrowed
    ? [h("h2", null, t("board.nothing_found")), h("button", { type: "button", class: "button", onclick: clear }, t("board.clear"))]
    : [h("h2", null, t("board.empty_title")), h("p", null, t("board.empty_about")), h("pre", { tabindex: 0 }, commands()[1])]));
}

/** The board could not be read. @param {unknown} error */
function failed(error) {
  // An address may name what is not there any more.
  if (error instanceof ApiError && error.status === 400) toast(error.words, { error: true, action: t("board.clear"), onaction: clear });
  else tell(error);
}

function clear() {
  address.write({ q: null, ...Object.fromEntries(address.FIELDS.map((name) => [name, null])) });
}

function knownLabels() {
  const counts = new Map();
  for (const ticket of tickets.all()) for (const label of ticket.labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]).slice(0, 30).map(([label]) => label);
}

/** @param {string} key */
function open(key, edit = false) {
  drawer.open(key, { edit });
  address.write({ ticket: key });
}

/** @param {any} ticket @param {"menu" | "people" | "priorities"} what */
async function itemsOf(ticket, what) {
  if (what === "people") return actions.people(ticket);
  if (what === "priorities") return actions.priorities(ticket);
  return actions.menu(ticket, { open: () => open(ticket.key), edit: () => open(ticket.key, true) });
}

/** Whether a menu is about to open: what is typed meanwhile is meant for it. */
let opening = false;

/** @param {HTMLElement} anchor @param {any} ticket @param {"menu" | "people" | "priorities"} what */
async function showMenu(anchor, ticket, what) {
  opening = true;
  const items = await itemsOf(ticket, what).finally(() => (opening = false));
  const back = elements.get(current?.column ?? "")?.linkOf(ticket.key) ?? anchor;
  openMenu(anchor, items, { label: t("card.menu", { key: ticket.key }), back });
}

columns.addEventListener("click", (/** @type {MouseEvent} */ event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  const key = target.closest("li[data-key]")?.dataset.key;
  const ticket = key && tickets.get(key);
  if (!ticket) return;
  const button = target.closest(".card-menu");
  if (button) showMenu(/** @type {HTMLElement} */ (button), ticket, "menu").catch(tell);
  else if (target.closest("a") && !event.metaKey && !event.ctrlKey && !event.shiftKey && event.button === 0) {
    event.preventDefault();
    open(key);
  }
});
columns.addEventListener("contextmenu", (/** @type {MouseEvent} */ event) => {
  const item = /** @type {HTMLElement} */ (event.target).closest("li[data-key]");
  const ticket = item && tickets.get(item.dataset.key);
  if (!ticket || past.time) return;
  event.preventDefault();
  showMenu(item.querySelector(".card-menu"), ticket, "menu").catch(tell);
});
allowDrops(columns, {
  ticketOf: (key) => (past.time ? undefined : tickets.get(key)),
  drop: (ticket, id) => {
    const column = tickets.columns.find((each) => each.id === id);
    const status = statuses.find((each) => each.id === column?.statuses[0]);
    if (column && status && !column.statuses.includes(ticket.status.id)) actions.move(ticket, status).catch(tell);
  },
});
followKeys({
  columns: () => [...elements.values()].filter((each) => !each.folded && !each.hidden),
  current: () => current,
  go: (column, key) => setCurrent(column, key, true),
  ticket: () => (past.time ? undefined : currentTicket()),
  open: () => current && open(current.key),
  edit: () => current && !past.time && open(current.key, true),
  menu: (what) => {
    const ticket = currentTicket();
    const anchor = current && elements.get(current.column)?.linkOf(current.key)?.parentElement?.querySelector(".card-menu");
    if (ticket && anchor && !past.time) showMenu(anchor, ticket, what).catch(tell);
  },
  close: () => (drawer.isOpen ? drawer.close() : past.time ? past.close() : undefined),
  undo: () => actions.undo(),
  opening: () => opening,
  ...ways,
});
addEventListener("open-ticket", (/** @type {any} */ { detail }) => open(detail));
drawer.onclose = () => {
  const key = address.value("ticket");
  address.write({ ticket: null });
  const column = tickets.columns.find(({ keys }) => keys.includes(key ?? ""));
  if (column && key) setCurrent(column.id, key, true);
};

let seen = location.search;
/** The address is another one: show what it says. */
function follow() {
  const [before, after] = [new URLSearchParams(seen), new URLSearchParams(location.search)];
  seen = location.search;
  const key = after.get("ticket");
  if (key !== drawer.key) {
    if (key) drawer.open(key);
    else drawer.close();
  }
  before.delete("ticket");
  after.delete("ticket");
  if (before.toString() !== after.toString()) load().catch(failed);
}
addEventListener("address", follow);
addEventListener("popstate", follow);

tickets.addEventListener("change", () => {
  if (tickets.uncertain) recount();
  schedule();
});

/** What changes faster than anybody can follow is not shown in motion. @param {number} changes */
function pace(changes) {
  recent += changes;
  columns.classList.toggle("hurried", isHurried());
}

let spoken = 0;
let unspoken = 0;
let begun = false;
const first = load().catch(failed);
stream.addEventListener("state", (/** @type {any} */ { detail }) => detail.name === "live" && drawer.again());
stream.addEventListener("begin", (/** @type {any} */ { detail }) => {
  const again = begun;
  begun = true;
  if (past.time) return;
  first.then(() => {
    // Read while the stream was opened: where both begin at the same event, nothing is between them.
    if (!again && position === detail.position) return undefined;
    return load().then(() => again && detail.reason !== "joined" && connection().resynced());
  }).catch(failed);
});
stream.addEventListener("events", (/** @type {any} */ { detail: { events } }) => {
  if (events.some((/** @type {any} */ event) => event.type === "reference.changed")) forget();
  drawer.hear(events);
  missed?.push(...events);
  if (past.time || !tickets.columns.length) return;
  pace(events.length);
  setTimeout(pace, PACE_MS, -events.length);
  hear(events);
  unspoken += events.filter((/** @type {any} */ event) => event.data?.ticket && event.actor !== me.actor).length;
  if (unspoken && Date.now() - spoken > SPOKEN_EVERY_MS) {
    announce(t("board.changes", { n: unspoken }));
    spoken = Date.now();
    unspoken = 0;
  }
});
setInterval(tick, 1000);
document.body.dataset.started = "yes";

// So that menus open at once.
(globalThis.requestIdleCallback ?? setTimeout)(() => {
  for (const kind of /** @type {const} */ (["users", "statuses"])) choices(kind).catch(() => {});
});
const who = await whoAmI().catch(() => null);
if (who && tickets.me !== null) document.querySelector(".shell-tools")?.append(who);
const opened = address.value("ticket");
if (opened) drawer.open(opened);
