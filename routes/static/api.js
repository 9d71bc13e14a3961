// The REST API, as every other client uses it.

import { taken } from "./early.js";
import { knows, t } from "./i18n.js";
import { headers } from "./session.js";

const AGAIN_MS = 700;

/** What the server, or the way to it, did not do. `code` is the problem's, or `unreachable`. */
export class ApiError extends Error {
  /** @param {number} status @param {any} problem */
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `${status}`);
    this.status = status;
    this.code = problem.code ?? "unreachable";
    this.problem = problem;
  }

  /** What to tell a person: in words of their language where there are some, with what the server said. */
  get words() {
    const key = `problem.${this.code}`;
    return knows(key) ? t(key, { ...this.problem, detail: this.message }) : this.message;
  }
}

/** What went wrong, for a person. @param {unknown} error */
export const words = (error) => (error instanceof ApiError ? error.words : String(error));

/**
 * @param {string} path with its query
 * @param {{signal?: AbortSignal}} [options]
 * @returns {Promise<any>} the answer. Rejects with ApiError.
 */
export function get(path, { signal } = {}) {
  return request("GET", path, { signal });
}

/**
 * Change something. The same call is made again, once, when nobody knows whether the first one arrived: its key makes
 * that harmless.
 * @param {"POST" | "PUT" | "PATCH" | "DELETE"} method
 * @param {string} path
 * @param {any} [body]
 * @param {{version?: number, lease?: string}} [conditions]
 * @returns {Promise<any>} the answer, null for none. Rejects with ApiError.
 */
export async function send(method, path, body, { version, lease } = {}) {
  const extra = /** @type {Record<string, string>} */ ({ "Idempotency-Key": newKey() });
  if (version !== undefined) extra["If-Match"] = `"${version}"`;
  if (lease) extra["TaskHub-Lease-Token"] = lease;
  try {
    return await request(method, path, { body, extra });
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== "unreachable") throw error;
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    return request(method, path, { body, extra });
  }
}

/**
 * Do something that knows no keys of repetition.
 * @param {"POST" | "PUT" | "DELETE"} method
 * @param {string} path
 * @param {any} [body]
 * @returns {Promise<any>} the answer, null for none. Rejects with ApiError.
 */
export function call(method, path, body) {
  return request(method, path, { body });
}

async function request(method, path, { body = undefined, extra = {}, signal = undefined }) {
  const sent = { ...headers(), ...extra };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let response;
  try {
    response = await ((method === "GET" && taken(path)) || fetch(path, { method, headers: sent, body: body === undefined ? undefined : JSON.stringify(body), signal }));
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, {});
  }
  const text = await response.text();
  if (!response.ok) throw new ApiError(response.status, parsed(text));
  return text ? JSON.parse(text) : null;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { detail: text.slice(0, 200), code: "unreadable" };
  }
}

// crypto.randomUUID is only there on secure origins; this need not be secret.
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
}
