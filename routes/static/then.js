// The board as it was: a slider over time, from the first event that is kept in mind to now.

import { get } from "./api.js";
import { h, icon } from "./dom.js";
import { ago, fullTime, t } from "./i18n.js";
import { announce, tell } from "./shell.js";

const STEPS = 1000;
const SETTLE_MS = 150;

export class PastBar {
  /** The moment that is shown, RFC 3339; null: now. @type {string | null} */ time = null;
  #first = 0;
  #timer = 0;
  #changed;

  /** @param {{changed: () => void}} ways `changed`: another moment is to be shown */
  constructor({ changed }) {
    this.#changed = changed;
    this.words = h("output", { class: "then-time", for: "then" });
    this.slider = h("input", { type: "range", id: "then", min: 0, max: STEPS, value: STEPS, "aria-label": t("then.label"), oninput: () => this.#slide() });
    this.element = h(
      "div", { class: "then", hidden: true, role: "group", "aria-label": t("then.open") },
      icon("time"), this.slider, this.words,
      h("button", { type: "button", class: "button", onclick: () => this.close() }, t("then.now")),
    );
    this.element.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.close();
    });
  }

  async open() {
    if (!this.element.hidden) return this.close();
    try {
      const { tickets } = await get("/api/v1/tickets?sort_by=created&sort_order=asc&show_completed=true&limit=1");
      const oldest = tickets.length ? (await get(`/api/v1/tickets/${tickets[0].key}`)).ticket.created_at : new Date().toISOString();
      this.#first = new Date(oldest).getTime();
    } catch (error) {
      return tell(error);
    }
    this.slider.value = String(STEPS);
    this.element.hidden = false;
    document.body.dataset.then = "open";
    this.#show();
    this.slider.focus();
    return undefined;
  }

  close() {
    this.element.hidden = true;
    delete document.body.dataset.then;
    if (this.time === null) return;
    this.time = null;
    this.#changed();
  }

  #slide() {
    this.#show();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const moment = this.#moment();
      this.time = moment === null ? null : new Date(moment).toISOString();
      this.#changed();
      announce(this.words.textContent);
    }, SETTLE_MS);
  }

  /** @returns {number | null} */
  #moment() {
    const at = Number(this.slider.value);
    if (at >= STEPS) return null;
    // The last hours of a long time take as much of the slider as the days before them.
    const back = (1 - at / STEPS) ** 2;
    return Math.round(Date.now() - back * (Date.now() - this.#first));
  }

  #show() {
    const moment = this.#moment();
    const words = moment === null ? t("then.now") : `${fullTime(moment)} · ${ago(moment)}`;
    this.words.textContent = words;
    this.slider.setAttribute("aria-valuetext", words);
  }
}
