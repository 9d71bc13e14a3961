// The pages where one lets applications in come in English and work as they are: this is for readers of other languages.

import { translate } from "./i18n.js";

translate();
const heading = document.querySelector("h1");
if (heading) document.title = `${heading.textContent} · TaskHub`;

// An answer is given once: a second one would be to a question that is answered already.
document.querySelector("form")?.addEventListener("submit", (event) => {
  const form = /** @type {HTMLFormElement} */ (event.target);
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "true";
  form.setAttribute("aria-busy", "true");
});

// Whoever comes back by the browser's own button may answer anew.
addEventListener("pageshow", () => delete document.querySelector("form")?.dataset.sent);
