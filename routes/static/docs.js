// What the page can do beyond being read: filter, copy, and ask the server that it came from.

const operations = [...document.querySelectorAll(".operation")];
const filter = document.getElementById("filter");

for (const element of document.querySelectorAll(".tools, .copy, .try")) element.hidden = false;

filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const operation of operations) {
    const text = `${operation.id} ${operation.firstElementChild.textContent}`.toLowerCase();
    operation.hidden = !words.every((word) => text.includes(word));
  }
  for (const section of document.querySelectorAll("section")) {
    section.hidden = !section.querySelector(".operation:not([hidden])");
  }
});

document.addEventListener("click", async (event) => {
  if (!event.target.matches(".copy")) return;
  const command = event.target.previousElementSibling;
  try {
    await navigator.clipboard.writeText(command.textContent);
    event.target.textContent = "Copied";
  } catch {
    // Not every page may write to the clipboard: over plain HTTP the person copies what is selected.
    getSelection().selectAllChildren(command);
  }
});

document.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!event.target.matches(".try")) return;
  const result = event.target.nextElementSibling;
  const key = document.getElementById("key")?.value;
  result.hidden = false;
  try {
    const response = await fetch(event.target.firstElementChild.value, { headers: key ? { "x-api-key": key } : {} });
    const body = await response.text();
    result.textContent = `${response.status} ${response.statusText}\n\n${readable(body)}`;
  } catch (error) {
    result.textContent = String(error);
  }
});

function readable(body) {
  try {
    return JSON.stringify(JSON.parse(body), null, 2);
  } catch {
    return body;
  }
}

function openNamed() {
  const named = document.getElementById(location.hash.slice(1));
  if (named?.matches(".operation")) named.open = true;
}

addEventListener("hashchange", openNamed);
openNamed();

// The bar, which all pages have, is in the reader's language; the description is there in English alone.
import("./i18n.js").then(({ translate }) => translate());
