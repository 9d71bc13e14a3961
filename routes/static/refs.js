// People, statuses, accounts and categories: what tickets refer to. Read when somebody asks, and again when it changed.

import { get } from "./api.js";

/**
 * @typedef {{id: string, name: string, phase?: string, kind?: string, active?: boolean}} Entry
 * @type {Map<string, Promise<Entry[]>>}
 */
const kept = new Map();

/**
 * @param {"users" | "accounts" | "categories" | "category-details" | "statuses" | "request-channels" | "response-categories"} kind
 * @returns {Promise<Entry[]>}
 */
export function entries(kind) {
  let found = kept.get(kind);
  if (!found) {
    found = get(`/api/v1/${kind}`).then(({ items }) => items);
    found.catch(() => kept.delete(kind));
    kept.set(kind, found);
  }
  return found;
}

/** Those that may still be chosen. @param {Parameters<typeof entries>[0]} kind */
export const choices = async (kind) => (await entries(kind)).filter((entry) => entry.active !== false);

export const forget = () => kept.clear();
