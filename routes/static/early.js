// What the page asks for first, asked while the other modules are still on their way: who sits here, and the board.
//
// It runs as soon as it is there, and needs little; the same requests made later by `api.js` get these answers.

import * as address from "./address.js";
import { headers } from "./session.js";

// A card with the room between two; in smaller letters there are more, and the rest is asked for when it is missing.
const ROW_PX = 100;
const BEYOND_SIGHT = 5;
/** As many cards of each column as there is room for. */
const FIRST_CARDS = Math.min(100, Math.ceil(innerHeight / ROW_PX) + BEYOND_SIGHT);
const PAST_CARDS = 100;

/** Whether the API's board, which has the last changed, does not have the first of each column. @param {string | null} moment */
export const isPartial = (moment) => address.order() !== "updated" && !moment && !address.value("q");

/** Where the board is read. @param {string | null} moment that it is to be shown as of */
export function boardPath(moment) {
  const query = address.query();
  if (moment) query.set("as_of", moment);
  query.set("limit", String(moment ? PAST_CARDS : address.value("q") || isPartial(moment) ? 1 : FIRST_CARDS));
  return `/api/v1/board?${query}`;
}

/** @type {Map<string, Promise<Response>>} */
const answers = new Map();

/** The answer to what was asked already, once. @param {string} path */
export function taken(path) {
  const answer = answers.get(path);
  answers.delete(path);
  return answer;
}

/** @param {string} path */
function ask(path) {
  const answer = fetch(path, { headers: headers() });
  answer.catch(() => {}); // told to whom it is given
  answers.set(path, answer);
}

const { page } = document.body.dataset;
if (page !== "login") ask("/api/v1/me");
if (page === "board") ask(boardPath(null));
