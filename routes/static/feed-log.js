// What the feed shows: a stretch of the log without holes, bounded, which grows at its newer end with the stream and at
// either end by reading the log. It knows nothing of the page.

import { get } from "./api.js";

/** Lines that are kept, and as many that wait while the reader does not want them yet. */
export const KEPT = 2000;
const PAGE = 500;
const ENOUGH = 100;
const FIRST_SPAN_MS = 15 * 60_000;
const LONGEST_SPAN_MS = 400 * 86_400_000;
const REQUESTS = 8;
const TRIES = 12;

/**
 * Dispatches `change` when there is something else to show.
 * @typedef {any} CloudEvent
 */
export class FeedLog extends EventTarget {
  /** Oldest first. @type {CloudEvent[]} */ events = [];
  /** Those that came and are not shown, oldest first. @type {CloudEvent[]} */ waiting = [];
  /** How many came and are not shown: of more than KEPT only the newest are there. */ waited = 0;
  /** Nothing older is kept by the server. */ complete = false;
  /** The reader wants no new lines. */ paused = false;
  /** What is shown ends before the newest event: it was read from the past. */ past = true;
  /** The log is read just now. */ busy = false;
  /** After what newer events are read. */ #position = "now";
  #ids = new Set();
  #span = FIRST_SPAN_MS;
  #filter;
  #ending = new AbortController();

  /** @param {URLSearchParams} filter with the names of the stream's parameters */
  constructor(filter) {
    super();
    this.#filter = filter;
  }

  close() {
    this.#ending.abort();
  }

  get live() {
    return !this.paused && !this.past;
  }

  /** What the stream brought. @param {CloudEvent[]} events */
  hear(events) {
    if (this.live && !this.busy) this.#append(events);
    else {
      this.waiting.push(...events);
      this.waited += events.length;
      if (this.waiting.length > KEPT) this.waiting.splice(0, this.waiting.length - KEPT);
    }
    this.#changed();
  }

  pause() {
    this.paused = true;
    this.#changed();
  }

  resume() {
    this.paused = false;
    if (!this.past) this.#takeWaiting();
    this.#changed();
  }

  /** Begin with what happened last. Rejects with ApiError. */
  async latest() {
    await this.#read(async () => {
      this.past = false;
      this.#prepend(await this.#before(null));
    });
  }

  /** Begin at a moment of the past. @param {string} start an id, a duration, a time or `earliest`. Rejects with ApiError. */
  async from(start) {
    // The log is read after a position, and who names an event wants to see it: the position before it.
    const event = /^([A-Za-z0-9]+)-([1-9]\d{0,14})$/.exec(start);
    this.#position = event ? `${event[1]}-${Number(event[2]) - 1}` : start;
    this.complete = start === "earliest";
    await this.newer();
  }

  /** Go on from a moment of the past, until there is nothing newer. Rejects with ApiError. */
  async newer() {
    await this.#read(async () => {
      let found = 0;
      for (let requests = 0; requests < REQUESTS && found < PAGE; requests += 1) {
        const page = await this.#page(this.#position, PAGE);
        this.#position = page.position;
        found += page.events.length;
        this.#append(page.events);
        this.past = page.more;
        if (!page.more) break;
      }
    });
  }

  /** Show what was before. Rejects with ApiError. */
  async older() {
    await this.#read(async () => this.#prepend(await this.#before(this.events.find(isStored) ?? null)));
  }

  /** @param {() => Promise<void>} work */
  async #read(work) {
    if (this.busy) return;
    this.busy = true;
    this.#changed();
    try {
      await work();
    } finally {
      this.busy = false;
      // What came while the log was read may be in what was read.
      if (this.live) this.#takeWaiting();
      this.#changed();
    }
  }

  /**
   * The newest events before one, or of all, oldest first. The log is read forward only, so a time is looked for from
   * which it is not far to there.
   * @param {CloudEvent | null} first
   */
  async #before(first) {
    const until = first ? Date.parse(first.time) : Date.now();
    let tooLong = Infinity;
    let found = /** @type {CloudEvent[]} */ ([]);
    for (let tries = 0; tries < TRIES; tries += 1) {
      const beginning = this.#span > LONGEST_SPAN_MS;
      const start = beginning ? "earliest" : new Date(until - this.#span).toISOString();
      const stretch = await this.#stretch(start, first);
      if (!stretch.whole) {
        tooLong = this.#span;
        this.#span /= 4;
        if (found.length) break;
        continue;
      }
      found = stretch.events;
      this.complete = beginning && !stretch.cut;
      if (beginning || found.length >= ENOUGH || this.#span * 4 >= tooLong) break;
      this.#span *= found.length ? 4 : 16;
    }
    return found;
  }

  /** The last events from a time on until one; `whole`: it was reached. @param {string} start @param {CloudEvent | null} first */
  async #stretch(start, first) {
    let events = /** @type {CloudEvent[]} */ ([]);
    let position = start;
    let cut = false;
    for (let requests = 0; requests < REQUESTS; requests += 1) {
      const page = await this.#page(position, PAGE);
      position = page.position;
      const at = first ? page.events.findIndex((/** @type {CloudEvent} */ event) => event.id === first.id) : -1;
      events.push(...(at < 0 ? page.events : page.events.slice(0, at)));
      cut ||= events.length > PAGE;
      events = events.slice(-PAGE);
      if (at >= 0 || !page.more) return { events, whole: true, cut };
    }
    return { events, whole: false, cut };
  }

  /** @param {string} after @param {number} limit */
  #page(after, limit) {
    const parameters = new URLSearchParams(this.#filter);
    parameters.set("after", after);
    parameters.set("limit", String(limit));
    return get(`/api/v1/events?${parameters}`, { signal: this.#ending.signal });
  }

  #takeWaiting() {
    this.#append(this.waiting);
    this.waiting = [];
    this.waited = 0;
  }

  /** @param {CloudEvent[]} events */
  #append(events) {
    const fresh = events.filter((event) => !this.#ids.has(event.id));
    for (const event of fresh) this.#ids.add(event.id);
    this.events.push(...fresh);
    const over = this.events.length - KEPT;
    if (over > 0) {
      this.#forget(this.events.splice(0, over));
      this.complete = false;
    }
  }

  /** @param {CloudEvent[]} events */
  #prepend(events) {
    const fresh = events.filter((event) => !this.#ids.has(event.id));
    for (const event of fresh) this.#ids.add(event.id);
    this.events.unshift(...fresh);
    if (this.events.length <= KEPT) return;
    // Who goes back far leaves the present: what is newer is read again on the way there.
    this.#forget(this.events.splice(KEPT));
    this.past = true;
    this.#position = this.events.findLast(isStored)?.id ?? this.#position;
  }

  /** @param {CloudEvent[]} events */
  #forget(events) {
    for (const event of events) this.#ids.delete(event.id);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** Whether an event is in the log: one that is not has no place there to go on from. @param {CloudEvent} event */
export const isStored = (event) => !/^[0-9a-f]{8}-[0-9a-f]{4}-/i.test(event.id);
