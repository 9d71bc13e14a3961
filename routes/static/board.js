// The board's page.

import * as address from "./address.js";
import { get } from "./api.js";
import { BoardColumn } from "./column.js";
import { card, tick } from "./card.js";
import { h, isTyping } from "./dom.js";
import { t } from "./i18n.js";
import { announce, connection, start, tell } from "./shell.js";
import { headers } from "./session.js";
import { openStream } from "./stream.js";
import { Tickets } from "./tickets.js";

const FIRST_CARDS = 25;
const PAGE = 100;
const BEGIN_WAIT_MS = 1500;
const RECOUNT_MS = 2000;

const me = await start();
const tickets = new Tickets();
const main = /** @type {HTMLElement} */ (document.querySelector("main"));
const columns = h("div", { class: "columns" });
main.append(columns);

const stream = openStream({ url: "/events/stream?batch=100&coalesce=ticket", headers: headers() });
connection().follow(stream);

/** @type {Map<string, BoardColumn>} */
const elements = new Map();
let loading = Promise.resolve();

async function load() {
  const query = address.query();
  query.set("limit", String(FIRST_CARDS));
  const board = await get(`/api/v1/board?${query}`);
  tickets.filter = address.filterOf(me.user?.id ?? null);
  tickets.load(board, { group: "status", words: (phase) => t(`phase.${phase}`) });
}

function render() {
  for (const column of tickets.columns) {
    let element = elements.get(column.id);
    if (!element) {
      element = new BoardColumn();
      element.setUp({
        id: column.id, name: column.name, phase: column.phase,
        ticketOf: (key) => tickets.get(key), cardOf: (ticket) => card(ticket, address.hrefOf(ticket.key), false),
      });
      elements.set(column.id, element);
      columns.append(element);
    }
    element.show(column.keys, column.count);
  }
}

let scheduled = false;
tickets.addEventListener("change", () => {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    render();
  });
});
stream.addEventListener("begin", () => load().catch(tell));
stream.addEventListener("events", ({ detail }) => tickets.apply(detail.events));
setInterval(tick, 1000);
