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
// nobody. It needs only the modules beside it, and may be imported by pages of other allowed origins.

import { StreamReader } from "./stream-reader.js";

export { FrameParser } from "./stream-frames.js";
export { StreamReader };

const REMEMBERED = 4096;
const ASKED_EVERY_MS = 15_000;
const ANSWER_MS = 4000;
const UNANSWERED = 3;
const WELCOME_MS = 250;

/**
 * @typedef {import("./stream-reader.js").StreamState} StreamState
 * @typedef {import("./stream-reader.js").Told} Told
 */

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
