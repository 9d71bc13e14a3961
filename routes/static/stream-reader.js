// One connection to a stream, which comes back by itself.

import { FrameParser } from "./stream-frames.js";

const HEARTBEATS_MISSED = 2.5;
const FIRST_HEARTBEAT_S = 15;
const RETRY_MS = 2000;
const RETRY_MAX_MS = 30_000;
const NUDGE_MS = 1000;

/**
 * What a stream is doing. `connecting`: for the first time. `live`. `catching_up`: replaying; `count` events so far.
 * `reconnecting`: the next attempt is at `at`; nothing has come since `since`. `signed_out`: the server wants to know
 * who calls. `refused`: it cannot do what is asked, for the reason `detail`. `ended`: as the request asked for.
 * Times are milliseconds since 1970.
 * @typedef {{name: "connecting" | "live" | "catching_up" | "reconnecting" | "signed_out" | "refused" | "ended",
 *   count?: number, at?: number, since?: number, detail?: string}} StreamState
 *
 * What a reader tells its tabs. `begin`: from here on every event comes; what a page has shown before may be too old.
 * @typedef {{kind: "state", state: StreamState}
 *   | {kind: "begin", position: string, reason: string}
 *   | {kind: "events", events: any[], position: string}
 *   | {kind: "snapshot", tickets: any[], more: boolean}
 *   | {kind: "notice", notice: {code: string, detail: string}}} Told
 */

/** Holds one connection, and makes it again until it is closed or the server says that there is no use in it. */
export class StreamReader {
  #url;
  #headers;
  #tell;
  #retryMs = RETRY_MS;
  #attempts = 0;
  #lastByte = Date.now();
  #heartbeatMs = FIRST_HEARTBEAT_S * 1000;
  #closed = false;
  /** @type {AbortController | null} */ #request = null;
  /** @type {(() => void) | null} */ #wake = null;
  #woken = 0;
  #replayed = 0;
  /** @type {string | null} */ position;
  /** @type {StreamState} */ state = { name: "connecting" };
  began = false;

  /**
   * @param {{url: string, headers?: Record<string, string>, position?: string | null, tell: (told: Told) => void}} options
   *   `position`: after which event to go on; null for from now on.
   */
  constructor({ url, headers = {}, position = null, tell }) {
    const absolute = new URL(url);
    // Statuses say more than a stream that is only a goodbye, and nothing here gives up because of one.
    absolute.searchParams.set("errors", "status");
    this.#url = absolute.href;
    this.#headers = headers;
    this.position = position;
    this.began = position !== null;
    this.#tell = tell;
    this.#run();
  }

  close() {
    this.#closed = true;
    this.#request?.abort();
    this.#wake?.();
  }

  /** Do not wait for the next attempt: somebody looks at it now, or the network is back. */
  nudge() {
    if (Date.now() - this.#woken < NUDGE_MS) return;
    this.#woken = Date.now();
    this.#wake?.();
  }

  async #run() {
    const online = () => this.nudge();
    globalThis.addEventListener?.("online", online);
    while (!this.#closed) {
      let wait = null;
      try {
        wait = await this.#connect();
      } catch {
        // The network's errors say nothing that the next attempt does not find out.
      }
      if (this.#closed || wait === "stop") break;
      this.#attempts += 1;
      await this.#pause(wait ?? this.#backoff());
    }
    globalThis.removeEventListener?.("online", online);
  }

  /** One connection, until it ends. How long to wait then: milliseconds, null for the usual time, or not at all. */
  async #connect() {
    const request = new AbortController();
    this.#request = request;
    // A server that is gone without a word, and a machine that slept, are noticed by what does not come any more.
    const watch = setInterval(() => {
      if (Date.now() - this.#lastByte > HEARTBEATS_MISSED * this.#heartbeatMs) request.abort();
    }, 1000);
    const attempted = Date.now();
    const lastByte = this.#lastByte;
    this.#lastByte = attempted;
    try {
      const headers = { Accept: "text/event-stream", ...this.#headers };
      if (this.position !== null) headers["Last-Event-ID"] = this.position;
      let response;
      try {
        response = await fetch(this.#url, { headers, cache: "no-store", signal: request.signal });
      } catch (error) {
        this.#lastByte = lastByte; // nothing has come
        throw error;
      }
      if (!response.ok || !response.headers.get("content-type")?.startsWith("text/event-stream")) {
        return await this.#refused(response);
      }
      const parser = new FrameParser();
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return null;
        this.#lastByte = Date.now();
        for (const frame of parser.push(value)) {
          const end = this.#take(frame);
          if (end !== undefined) return end;
        }
      }
    } finally {
      clearInterval(watch);
      request.abort();
      this.#request = null;
    }
  }

  /** @returns {number | "stop" | null | undefined} how to go on after a frame that ends the stream */
  #take({ event, data, id, retry }) {
    const body = JSON.parse(data);
    if (retry !== null) this.#retryMs = retry;
    if (id !== null) this.position = id;
    switch (event) {
      case "hello":
        this.#heartbeatMs = body.heartbeat_s * 1000;
        this.#replayed = 0;
        if (body.resume === "none") this.#begin("opened");
        else this.#enter({ name: "catching_up", count: 0 });
        return undefined;
      case "ready":
        this.#attempts = 0;
        this.#enter({ name: "live" });
        return undefined;
      case "reset":
        this.#begin(body.reason);
        return undefined;
      case "snapshot":
        this.#tell({ kind: "snapshot", tickets: body.tickets, more: body.more });
        return undefined;
      case "heartbeat":
        return undefined;
      case "notice":
        this.#tell({ kind: "notice", notice: body });
        return undefined;
      case "goodbye":
        return this.#goodbye(body);
      default: {
        const events = event === "batch_update" ? body.events : [body];
        this.#tell({ kind: "events", events, position: this.position ?? "" });
        if (this.state.name === "catching_up") {
          this.#replayed += events.length;
          this.#enter({ name: "catching_up", count: this.#replayed });
        }
        return undefined;
      }
    }
  }

  #begin(reason) {
    this.began = true;
    this.#tell({ kind: "begin", position: this.position ?? "", reason });
  }

  #goodbye({ reason, reconnect, retry_ms: retryMs }) {
    if (reconnect) return retryMs;
    const name = reason === "revoked" || reason === "auth_expired" ? "signed_out" : "ended";
    this.#enter({ name, detail: reason });
    return /** @type {const} */ ("stop");
  }

  async #refused(response) {
    if (response.status === 204) {
      // As for EventSource: there is nothing more to come.
      this.#enter({ name: "ended" });
      return "stop";
    }
    const problem = await response.json().catch(() => ({}));
    if (response.status === 429 || response.status >= 500 || response.ok) {
      const after = Number(response.headers.get("retry-after"));
      return after > 0 ? after * 1000 * jitter() : null;
    }
    const name = response.status === 401 ? "signed_out" : "refused";
    this.#enter({ name, detail: problem.detail ?? `${response.status}` });
    return "stop";
  }

  #backoff() {
    if (this.#attempts <= 1) return this.#retryMs;
    return Math.min(RETRY_MAX_MS, this.#retryMs * 1.7 ** (this.#attempts - 1)) * jitter();
  }

  async #pause(milliseconds) {
    this.#enter({ name: "reconnecting", at: Date.now() + milliseconds, since: this.#lastByte });
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve(undefined);
      };
    });
    this.#wake = null;
  }

  /** @param {StreamState} state */
  #enter(state) {
    this.state = state;
    this.#tell({ kind: "state", state });
  }
}

function jitter() {
  return 0.5 + Math.random();
}
