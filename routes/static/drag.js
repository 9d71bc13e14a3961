// Cards that a mouse takes to another column. The menu of a card does the same for every other way of pointing.

const TYPE = "application/x-taskhub-ticket";

/**
 * @param {HTMLElement} columns
 * @param {{ticketOf: (key: string) => any, drop: (ticket: any, column: string) => void}} ways
 */
export function allowDrops(columns, { ticketOf, drop }) {
  /** @type {string | null} what a page of another window drags is not ours */
  let dragged = null;
  const columnAt = (/** @type {DragEvent} */ event) => /** @type {HTMLElement} */ (event.target).closest?.("board-column[data-phase]");
  const unmark = () => {
    for (const each of columns.querySelectorAll(".drop")) each.classList.remove("drop");
  };
  columns.addEventListener("dragstart", (event) => {
    const item = /** @type {HTMLElement} */ (event.target).closest?.("li[data-key]");
    if (!item || !ticketOf(item.dataset.key) || !event.dataTransfer) return;
    dragged = item.dataset.key;
    item.classList.add("dragged");
    event.dataTransfer.setData(TYPE, dragged);
    event.dataTransfer.setData("text/plain", `${dragged} ${ticketOf(dragged).summary}`);
    event.dataTransfer.effectAllowed = "copyMove";
  });
  columns.addEventListener("dragover", (event) => {
    const column = columnAt(event);
    if (!dragged || !column) return;
    event.preventDefault();
    if (event.dataTransfer) event.dataTransfer.dropEffect = "move";
    if (column.classList.contains("drop")) return;
    unmark();
    column.classList.add("drop");
  });
  columns.addEventListener("drop", (event) => {
    const column = columnAt(event);
    const ticket = dragged && ticketOf(dragged);
    if (!column || !ticket) return;
    event.preventDefault();
    drop(ticket, column.dataset.column);
  });
  columns.addEventListener("dragend", () => {
    dragged = null;
    unmark();
    for (const each of columns.querySelectorAll(".dragged")) each.classList.remove("dragged");
  });
}
