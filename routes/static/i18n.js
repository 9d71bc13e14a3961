// Words in the reader's language: English or Japanese, as the browser says or as was chosen.

const CHOICE = "taskhub.language";
export const LANGUAGES = /** @type {const} */ ({ en: "English", ja: "日本語" });

/** @returns {"en" | "ja"} */
function chosen() {
  const stored = localStorage.getItem(CHOICE);
  const wanted = stored ? [stored] : navigator.languages;
  return wanted.map((tag) => tag.slice(0, 2)).find((tag) => tag in LANGUAGES) ?? "en";
}

export const language = chosen();
document.documentElement.lang = language;

/** @type {Record<string, string | ((values: any) => string)>} */
const words = (await import(`./words-${language}.js`)).default;

/**
 * The words of a key. A key without words is shown as it is, which a test finds.
 * @param {string} key
 * @param {Record<string, any>} [values]
 * @returns {string}
 */
export function t(key, values = {}) {
  const found = words[key];
  return typeof found === "function" ? found(values) : (found ?? key);
}

/** Whether there are words for a key: the server has names that this file does not know. */
export const knows = (/** @type {string} */ key) => key in words;

/** @param {string} tag */
export function choose(tag) {
  localStorage.setItem(CHOICE, tag);
  location.reload();
}

/** Put the words of this language into what came from the server in English. */
export function translate(root = document) {
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of root.querySelectorAll("[data-t-label]")) element.setAttribute("aria-label", t(element.dataset.tLabel));
}

/** Each is made when somebody needs it: the first takes a browser many milliseconds. @template F @param {() => F} make */
function once(make) {
  /** @type {F | undefined} */
  let made;
  return () => (made ??= make());
}
const dates = (/** @type {Intl.DateTimeFormatOptions} */ options) => once(() => new Intl.DateTimeFormat(language, options));
const formats = {
  time: dates({ hour: "2-digit", minute: "2-digit" }),
  full: dates({ dateStyle: "medium", timeStyle: "short" }),
  relative: once(() => new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" })),
};

/** @param {number | string | Date} time */
export const clockTime = (time) => formats.time().format(new Date(time));
/** @param {number | string | Date} time */
export const fullTime = (time) => formats.full().format(new Date(time));

/**
 * A date `YYYY-MM-DD`, which is the same day wherever it is read. In words of our own: to make the first format
 * takes a browser longer than to draw the cards that have dates.
 * @param {string} date
 */
export function dayOf(date) {
  const [year, month, day] = date.split("-").map(Number);
  return t(year === new Date().getFullYear() ? "date.day" : "date.year", { year, month, day });
}

/**
 * How long ago, or ahead.
 * @param {string | number | Date} time
 */
export function ago(time, now = Date.now()) {
  const seconds = (new Date(time).getTime() - now) / 1000;
  for (const [unit, length] of /** @type {const} */ ([["day", 86_400], ["hour", 3600], ["minute", 60]])) {
    if (Math.abs(seconds) >= length) return formats.relative().format(Math.trunc(seconds / length), unit);
  }
  return formats.relative().format(Math.trunc(seconds / 60), "minute");
}
