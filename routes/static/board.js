// The board's page: puts bar, columns, stream and keys together, and what people do with tickets when that is there.

import * as address from "./address.js";
import { ApiError } from "./api.js";
import { bar, whoAmI } from "./bar.js";
import { tick } from "./card.js";
import { Columns } from "./columns.js";
import { h } from "./dom.js";
import { allowDrops } from "./drag.js";
import { t } from "./i18n.js";
import { followKeys } from "./keys.js";
import { afterFrame, whenIdle } from "./pace.js";
import { Reading } from "./reading.js";
import { choices, forget } from "./refs.js";
import { headers } from "./session.js";
import { announce, connection, start, tell, toast } from "./shell.js";
import { Tickets } from "./tickets.js";

const SPOKEN_EVERY_MS = 10_000;

/** @typedef {import("./work.js").Work} Work */
/** @typedef {import("./work.js").Menu} Menu */

const me = await start();
const main = /** @type {HTMLElement} */ (document.querySelector("main"));
const stage = h("div", { class: "stage" });
const tickets = new Tickets();
tickets.me = me.user?.id ?? null;

/** What people do with tickets, once it is there. @type {Work | null} */
let ready = null;
/** @type {Promise<Work> | null} */
let coming = null;

/** What people do with tickets: on its way when the first cards are there, or when somebody wants it. */
function work() {
  coming ??= import("./work.js").then(({ Work }) => {
    ready = new Work({ tickets, me, top, open, changed: () => reading.load().catch(failed) });
    stage.append(ready.drawer.element);
    ready.drawer.onclose = closed;
    return ready;
  });
  return coming.catch(() => {
    coming = null; // the next one tries again
    throw new ApiError(0, {});
  });
}

/** The moment that is shown, RFC 3339; null: now. */
const moment = () => ready?.past?.time ?? null;
const reading = new Reading({ tickets, moment, failed });
const columns = new Columns({
  tickets, more: (id) => reading.more(id), frozen: () => moment() !== null, clear: address.clear,
  needsYou: () => !moment() && !address.value("q") && (tickets.me !== null || !me.authenticated),
});
columns.ondraw = () => ready?.drawer.refresh();

const create = () => work().then((done) => {
  const status = reading.statuses.find(({ id }) => id === columns.current?.column);
  done.create({ status, created: (key) => columns.expect(key) });
}).catch(tell);
const help = () => work().then((done) => done.help()).catch(tell);
const then = () => work().then((done) => done.lookBack()).catch(tell);
const filters = (/** @type {HTMLElement} */ anchor) => work().then((done) => done.filters(anchor, knownLabels())).catch(tell);

const top = bar({ filters, create, help, then });
main.append(top, columns.picker, stage);
stage.append(columns.element, columns.emptiness);

/** The board could not be read. @param {unknown} error */
function failed(error) {
  // An address may name what is not there any more.
  if (error instanceof ApiError && error.status === 400) toast(error.words, { error: true, action: t("board.clear"), onaction: address.clear });
  else tell(error);
}

function knownLabels() {
  const counts = new Map();
  for (const ticket of tickets.all()) for (const label of ticket.labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]).slice(0, 30).map(([label]) => label);
}

/** @param {string} key */
function open(key, edit = false) {
  return work().then(({ drawer }) => {
    drawer.open(key, { edit });
    address.write({ ticket: key });
  }).catch(tell);
}

/** The drawer is about to close. */
function closed() {
  const key = address.value("ticket");
  address.write({ ticket: null });
  const column = tickets.columns.find(({ keys }) => keys.includes(key ?? ""));
  if (column && key) columns.go(column.id, key, true);
}

/** @param {HTMLElement} anchor @param {any} ticket @param {Menu} what */
const showMenu = (anchor, ticket, what) => (
  work().then((done) => done.menu(anchor, ticket, what, columns.linkOf(ticket.key) ?? anchor)).catch(tell)
);

columns.element.addEventListener("click", (/** @type {MouseEvent} */ event) => {
  const target = /** @type {HTMLElement} */ (event.target);
  const key = target.closest("li[data-key]")?.dataset.key;
  const ticket = key && tickets.get(key);
  if (!ticket) return;
  const button = target.closest(".card-menu");
  if (button) showMenu(/** @type {HTMLElement} */ (button), ticket, "menu");
  else if (target.closest("a") && !event.metaKey && !event.ctrlKey && !event.shiftKey && event.button === 0) {
    event.preventDefault();
    open(key);
  }
});
columns.element.addEventListener("contextmenu", (/** @type {MouseEvent} */ event) => {
  const item = /** @type {HTMLElement} */ (event.target).closest("li[data-key]");
  const ticket = item && tickets.get(item.dataset.key);
  if (!ticket || moment()) return;
  event.preventDefault();
  showMenu(item.querySelector(".card-menu"), ticket, "menu");
});
allowDrops(columns.element, {
  ticketOf: (key) => (moment() ? undefined : tickets.get(key)),
  drop: (ticket, id) => {
    const column = tickets.columns.find((each) => each.id === id);
    const status = reading.statuses.find((each) => each.id === column?.statuses[0]);
    if (column && status && !column.statuses.includes(ticket.status.id)) work().then(({ actions }) => actions.move(ticket, status)).catch(tell);
  },
});
followKeys({
  columns: () => columns.shown,
  current: () => columns.current,
  go: (column, key) => columns.go(column, key, true),
  edit: () => columns.current && !moment() && open(columns.current.key, true),
  menu: (what) => {
    const ticket = columns.current && tickets.get(columns.current.key);
    const anchor = columns.linkOf()?.parentElement?.querySelector(".card-menu");
    return ticket && anchor && !moment() ? showMenu(/** @type {HTMLElement} */ (anchor), ticket, what) : undefined;
  },
  close: () => (ready?.drawer.isOpen ? ready.drawer.close() : moment() ? ready?.past?.close() : undefined),
  undo: () => work().then(({ actions }) => actions.undo()).catch(tell),
  create,
  help,
});
addEventListener("open-ticket", (/** @type {any} */ { detail }) => open(detail));

/** Show the ticket that the address names, or none. */
function showTicket() {
  const key = address.value("ticket");
  if (key === null) ready?.drawer.close();
  else if (key !== ready?.drawer.key) work().then(({ drawer }) => address.value("ticket") === key && drawer.open(key)).catch(tell);
}

let seen = location.search;
/** The address is another one: show what it says. */
function follow() {
  const [before, after] = [new URLSearchParams(seen), new URLSearchParams(location.search)];
  seen = location.search;
  showTicket();
  before.delete("ticket");
  after.delete("ticket");
  if (before.toString() !== after.toString()) reading.load().catch(failed);
}
addEventListener("address", follow);
addEventListener("popstate", follow);

tickets.addEventListener("change", () => {
  if (tickets.uncertain) reading.recount();
  columns.draw();
});

/** Follow what happens: begun only after the first cards, because it takes a worker of its own. @param {Promise<unknown>} first that the board is read */
async function listen(first) {
  const { openStream } = await import("./stream.js");
  const stream = openStream({ url: "/events/stream?batch=100&coalesce=ticket", headers: headers() });
  connection().follow(stream);
  let spoken = 0;
  let unspoken = 0;
  let begun = false;
  stream.addEventListener("state", (/** @type {any} */ { detail }) => detail.name === "live" && ready?.drawer.again());
  stream.addEventListener("begin", (/** @type {any} */ { detail }) => {
    const again = begun;
    begun = true;
    if (moment()) return;
    first.then(() => {
      // Where both begin at the same event, nothing is between them.
      if (!again && reading.position === detail.position) return undefined;
      return reading.load().then(() => again && detail.reason !== "joined" && connection().resynced());
    }).catch(failed);
  });
  stream.addEventListener("events", (/** @type {any} */ { detail: { events } }) => {
    if (events.some((/** @type {any} */ event) => event.type === "reference.changed")) forget();
    ready?.drawer.hear(events);
    if (!moment()) columns.count(events.length);
    reading.hear(events);
    if (moment()) return;
    unspoken += events.filter((/** @type {any} */ event) => event.data?.ticket && event.actor !== me.actor).length;
    if (unspoken && Date.now() - spoken > SPOKEN_EVERY_MS) {
      announce(t("board.changes", { n: unspoken }));
      spoken = Date.now();
      unspoken = 0;
    }
  });
}

setInterval(tick, 1000);
showTicket();
const first = reading.load().catch(failed);
first.then(() => afterFrame(() => {
  listen(first).catch(tell);
  whenIdle(async () => {
    try {
      await work();
      // So that menus open at once.
      await Promise.all(/** @type {const} */ (["users", "statuses"]).map(choices));
      const who = tickets.me !== null && await whoAmI();
      if (who) document.querySelector(".shell-tools")?.append(who);
    } catch {
      // Whoever wants it finds out.
    }
    document.body.dataset.started = "yes";
  });
}));
