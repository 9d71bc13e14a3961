// TaskHub's event stream for pages: one connection for all tabs of a browser, which comes back by itself.
//
//     import { openStream } from "/static/stream.js";
//     const stream = openStream({ url: "/events/stream?batch=100" });
//     stream.addEventListener("begin", () => …read what the page shows: every later change follows as an event…);
//     stream.addEventListener("events", ({ detail }) => …detail.events: CloudEvents, in order, each once…);
//     stream.addEventListener("state", ({ detail }) => …detail.name: connecting, live, catching_up, …);
//
// Read by `fetch`, not by EventSource: it sends headers (an API key, with pages of other origins; TaskHub's own have a
// session, which the browser sends by itself), sees status codes, and notices the heartbeats, of which EventSource tells
// nobody. It needs nothing else, and may be imported by pages of other allowed origins.

const HEARTBEATS_MISSED = 2.5;
const FIRST_HEARTBEAT_S = 15;
const RETRY_MS = 2000;
const RETRY_MAX_MS = 30_000;
const NUDGE_MS = 1000;
const REMEMBERED = 4096;
const ASKED_EVERY_MS = 15_000;
const ANSWER_MS = 4000;
const UNANSWERED = 3;
const WELCOME_MS = 250;

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

/** Takes the bytes of a stream apart into frames (WHATWG HTML, 9.2.6). */
export class FrameParser {
  #decoder = new TextDecoder();
  #rest = "";
  #event = "";
  #data = [];
  #id = null;
  #retry = null;

  /**
   * The frames that these bytes complete.
   * @param {Uint8Array} bytes
   * @returns {{event: string, data: string, id: string | null, retry: number | null}[]}
   */
  push(bytes) {
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split("\n");
    this.#rest = lines.pop() ?? "";
    return lines.map((line) => this.#line(line.endsWith("\r") ? line.slice(0, -1) : line)).filter(Boolean);
  }

  #line(line) {
    if (line === "") {
      const frame = { event: this.#event || "message", data: this.#data.join("\n"), id: this.#id, retry: this.#retry };
      const whole = this.#data.length > 0;
      [this.#event, this.#data, this.#id, this.#retry] = ["", [], null, null];
      return whole ? frame : null;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return null;
    const [name, value] = colon < 0 ? [line, ""] : [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, "")];
    if (name === "event") this.#event = value;
    else if (name === "data") this.#data.push(value);
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.#retry = Number(value);
    return null;
  }
}

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

/** One reader for who listens on a channel: it answers those who come later where it stands. */
export class Holder {
  #channel;
  #reader;

  /**
   * @param {string} name of the channel
   * @param {{url: string, headers?: Record<string, string>, position?: string | null}} wish
   * @param {(told: Told) => void} [also] somebody in this very context: a channel does not hear itself
   */
  constructor(name, wish, also = () => {}) {
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => {
      if (data.kind === "join") this.welcome(data.tab);
      else if (data.kind === "nudge") this.#reader.nudge();
    };
    this.#reader = new StreamReader({
      ...wish,
      tell: (told) => {
        this.#channel.postMessage(told);
        also(told);
      },
    });
  }

  /** @param {string} tab */
  welcome(tab) {
    const { state, position, began } = this.#reader;
    this.#channel.postMessage({ kind: "welcome", tab, state, position: began ? position : null });
  }

  /** Whether it gave up: who asks again gets a new one. */
  get over() {
    return ["signed_out", "refused", "ended"].includes(this.#reader.state.name);
  }

  nudge() {
    this.#reader.nudge();
  }

  close() {
    this.#reader.close();
    this.#channel.close();
  }
}

/**
 * Follow a stream. Dispatches `begin`, `events`, `state`, `snapshot` and `notice`, with what is told in `detail`.
 *
 * All tabs that ask for the same share one connection: browsers allow a host six of them, and a stream never ends. A
 * SharedWorker holds it where there is one: it belongs to no tab, so it goes on when the tab that began it closes, and
 * is not slowed down in the background. Where there is none (or for another origin, which cannot start a worker from
 * here) the tabs hold a Web Lock in turn, and the next one goes on after the last event that it has seen itself. Where
 * there is neither, each tab has its own connection.
 */
export class TaskHubStream extends EventTarget {
  #tab = `${Math.random().toString(36).slice(2)}${Date.now().toString(36)}`;
  #name;
  #wish;
  /** @type {BroadcastChannel} */ #channel;
  /** @type {SharedWorker | null} */ #worker = null;
  /** @type {Holder | null} */ #holder = null;
  #ending = new AbortController();
  #seen = new Set();
  #begun = false;
  #welcomed = false;
  #asking = 0;
  #answer = 0;
  #unanswered = 0;
  /** @type {string | null} */ position = null;
  /** @type {StreamState} */ state = { name: "connecting" };
  /** How the connection is shared: `worker`, `lock` or `none`. */
  sharing = "none";

  /** @param {{url: string, headers?: Record<string, string>, share?: "worker" | "lock" | "none"}} options */
  constructor({ url, headers = {}, share = "worker" }) {
    super();
    this.#wish = { url: new URL(url, globalThis.location.href).href, headers };
    // The version of this file is part of its address: tabs of different versions do not talk to each other.
    this.#name = `taskhub-stream ${import.meta.url} ${JSON.stringify(this.#wish)}`;
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    globalThis.document?.addEventListener("visibilitychange", this.#look);
    globalThis.addEventListener?.("pagehide", this.#leave);
    globalThis.addEventListener?.("pageshow", this.#back);
    if (share === "worker" && this.#startWorker()) return;
    if (share !== "none" && globalThis.navigator?.locks) this.#awaitLock();
    else this.#hold(null);
  }

  close() {
    this.#ending.abort();
    this.#holder?.close();
    this.#leave();
    this.#channel.close();
    this.#dropWorker();
    globalThis.document?.removeEventListener("visibilitychange", this.#look);
    globalThis.removeEventListener?.("pagehide", this.#leave);
    globalThis.removeEventListener?.("pageshow", this.#back);
  }

  /** Begin anew after the stream was over for good: signed in again, somebody may follow it again. */
  again() {
    this.#begun = false;
    if (this.#worker) this.#join();
    else if (this.#holder) {
      this.#holder.close();
      this.#hold(null);
    } else this.#channel.postMessage({ kind: "join", tab: this.#tab });
  }

  #look = () => {
    if (document.visibilityState !== "visible") return;
    this.#holder?.nudge();
    this.#channel.postMessage({ kind: "nudge" });
    this.#ask("here");
  };

  #leave = () => this.#worker?.port.postMessage({ kind: "leave", name: this.#name, tab: this.#tab });

  /** @param {PageTransitionEvent} event */
  #back = (event) => {
    if (!event.persisted) return;
    // The page was put away and taken out again: what it missed meanwhile, nobody kept for it.
    this.#begun = false;
    this.#join();
  };

  #startWorker() {
    const address = new URL("./stream-worker.js", import.meta.url);
    if (!globalThis.SharedWorker || address.origin !== globalThis.location.origin) return false;
    try {
      this.#worker = new SharedWorker(address, { type: "module", name: "taskhub-stream" });
    } catch {
      return false;
    }
    this.sharing = "worker";
    this.#worker.onerror = () => this.#goWithout();
    this.#worker.port.onmessage = () => {
      clearTimeout(this.#answer);
      this.#answer = 0;
      this.#unanswered = 0;
      // It answers here, and welcomes on the channel, which may not reach a tab that has only just begun to listen there.
      setTimeout(() => this.#welcomed || !this.#worker || this.#ask("join"), WELCOME_MS);
    };
    // It ends with the process that it runs in, which may be that of another tab; nobody is told.
    this.#asking = setInterval(() => this.#ask("here"), ASKED_EVERY_MS);
    this.#join();
    return true;
  }

  #join() {
    this.#welcomed = false;
    if (this.#worker) this.#ask("join");
    else this.#channel.postMessage({ kind: "join", tab: this.#tab });
  }

  /** @param {"join" | "here"} kind `join`: tell this tab what comes; `here`: does it, still? */
  #ask(kind) {
    this.#worker?.port.postMessage({ kind, name: this.#name, wish: this.#wish, tab: this.#tab });
    if (this.#worker) this.#answer ||= setTimeout(() => this.#replaceWorker(), ANSWER_MS * 2 ** this.#unanswered);
  }

  /** Who does not answer has ended, or was about to when this tab came. */
  #replaceWorker() {
    this.#dropWorker();
    this.#begun = false;
    this.#unanswered += 1;
    if (this.#unanswered >= UNANSWERED || !this.#startWorker()) this.#goWithout();
  }

  #dropWorker() {
    clearInterval(this.#asking);
    clearTimeout(this.#answer);
    this.#answer = 0;
    if (!this.#worker) return;
    this.#worker.onerror = null;
    this.#worker.port.onmessage = null;
    this.#worker.port.close();
    this.#worker = null;
  }

  #goWithout() {
    this.#dropWorker();
    if (globalThis.navigator?.locks) this.#awaitLock();
    else this.#hold(null);
  }

  #awaitLock() {
    this.sharing = "lock";
    const held = async () => {
      this.#hold(this.#begun ? this.position : null);
      await new Promise((resolve) => this.#ending.signal.addEventListener("abort", resolve));
    };
    navigator.locks.request(this.#name, { signal: this.#ending.signal }, held).catch(() => {});
    this.#join();
  }

  /** @param {string | null} position */
  #hold(position) {
    this.#holder = new Holder(this.#name, { ...this.#wish, position }, (told) => this.#hear(told));
  }

  #hear(told) {
    if (told.kind === "welcome") {
      if (told.tab !== this.#tab) return;
      this.#welcomed = true;
      this.#enter(told.state);
      // Who holds it listens already: what is read from now on is not older than the first event that comes.
      if (told.position !== null) this.#begin({ kind: "begin", position: told.position, reason: "joined" });
    } else if (told.kind === "state") {
      this.#enter(told.state);
    } else if (told.kind === "begin") {
      this.#begin(told);
    } else if (told.kind === "events") {
      this.position = told.position;
      const events = told.events.filter((event) => this.#isNew(event.id));
      if (this.#begun && events.length) this.#dispatch("events", { events, position: told.position });
    } else if (told.kind === "snapshot" || told.kind === "notice") {
      this.#dispatch(told.kind, told);
    }
  }

  #begin(told) {
    if (told.reason === "joined" && this.#begun) return;
    this.#begun = true;
    this.position = told.position;
    this.#dispatch("begin", told);
  }

  #isNew(id) {
    if (this.#seen.has(id)) return false;
    this.#seen.add(id);
    if (this.#seen.size > REMEMBERED) this.#seen.delete(this.#seen.values().next().value);
    return true;
  }

  /** @param {StreamState} state */
  #enter(state) {
    this.state = state;
    this.#dispatch("state", state);
  }

  #dispatch(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/**
 * Follow `url`; see TaskHubStream.
 * @param {{url: string, headers?: Record<string, string>, share?: "worker" | "lock" | "none"}} options
 */
export function openStream(options) {
  return new TaskHubStream(options);
}

function jitter() {
  return 0.5 + Math.random();
}
