// What the page's address says: filters, search, columns, the ticket that is open. A link shows others the same.

export const FIELDS = /** @type {const} */ (["assignee", "priority", "label", "account", "category"]);
/** What can come first in a column. */
export const ORDERS = /** @type {const} */ (["updated", "priority", "due", "created"]);
// The board's address has names of its own for one of them.
const PARAMETERS = { assignee: "person_in_charge" };

/** @returns {URLSearchParams} */
const read = () => new URLSearchParams(location.search);

/**
 * Change what the address says: null takes a name out. `kept`: without a step that Back goes back to.
 * @param {Record<string, string | null>} changes
 */
export function write(changes, { kept = false } = {}) {
  const parameters = read();
  for (const [name, value] of Object.entries(changes)) {
    if (value) parameters.set(name, value);
    else parameters.delete(name);
  }
  const query = parameters.toString().replaceAll("%2C", ",");
  const address = query ? `${location.pathname}?${query}` : location.pathname;
  if (address === location.pathname + location.search) return;
  if (kept) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  dispatchEvent(new Event("address"));
}

/** @param {string} name */
export const value = (name) => read().get(name);

/** What comes first in a column: what the address says, where that is an order there is. */
export const order = () => ORDERS.find((each) => each === value("sort")) ?? "updated";

// Of the address as it was when somebody asked last: there are many cards.
let asked = "";
let others = "?";

/** @param {string} key */
export function hrefOf(key) {
  if (asked !== location.search) {
    const parameters = read();
    parameters.delete("ticket");
    const query = parameters.toString().replaceAll("%2C", ",");
    [asked, others] = [location.search, query ? `?${query}&` : "?"];
  }
  return `${others}ticket=${encodeURIComponent(key)}`;
}

/**
 * The chosen values of each field, as the address has them.
 * @returns {Partial<Record<typeof FIELDS[number], string[]>>}
 */
export function filters() {
  const parameters = read();
  return Object.fromEntries(
    FIELDS.map((name) => [name, (parameters.get(name) ?? "").split(",").filter(Boolean)]).filter(([, values]) => values.length),
  );
}

/** Take a value into what a field narrows the board to, or out of it. @param {string} name @param {string} value @param {boolean} chosen */
export function choose(name, value, chosen) {
  const before = /** @type {string[]} */ (filters()[name] ?? []);
  const values = chosen ? [...before, value] : before.filter((each) => each !== value);
  write({ [name]: values.join(",") || null });
}

/** Let nothing narrow the board any more. */
export function clear() {
  write({ q: null, ...Object.fromEntries(FIELDS.map((name) => [name, null])) });
}

/**
 * The same as ids: `me` is somebody.
 * @param {string | null} me
 * @returns {import("./tickets.js").Filter}
 */
export function filterOf(me) {
  const found = filters();
  if (found.assignee) found.assignee = found.assignee.map((id) => (id === "me" ? me ?? "me" : id));
  return found;
}

/** The filters as parameters of the API. */
export function query() {
  const parameters = new URLSearchParams();
  for (const [name, values] of Object.entries(filters())) parameters.set(PARAMETERS[name] ?? name, values.join(","));
  return parameters;
}
