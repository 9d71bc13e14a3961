// Making elements. Text is only ever text: nothing here parses HTML, and what people write cannot become markup.

const SVG = "http://www.w3.org/2000/svg";
/** @type {Map<string, SVGElement>} a drawing is copied: looked up anew, each would cost a request */
const drawings = new Map();

/**
 * An element: `h("button", { type: "button", class: "button", onclick: save, "aria-label": words }, "Save")`.
 * Properties that begin with `on` are listeners; true sets an attribute, false, null and undefined leave it out.
 * @param {string} tag
 * @param {Record<string, any> | null} [properties]
 * @param {...(Node | string | number | null | undefined | false | (Node | string | null | undefined | false)[])} children
 * @returns {any}
 */
export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...shown(children));
  return element;
}

/**
 * What is left of children without the absent ones.
 * @param {any[]} children
 * @returns {(Node | string)[]}
 */
export function shown(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false).map(
    (child) => (typeof child === "number" ? String(child) : child),
  );
}

/**
 * A picture of the sprite. Without a label it only repeats what stands beside it, and is not read out.
 * @param {string} name
 * @param {string} [label]
 * @returns {SVGElement}
 */
export function icon(name, label) {
  const svg = /** @type {SVGElement} */ (drawing(name).cloneNode(true));
  if (label) {
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
  } else {
    svg.setAttribute("aria-hidden", "true");
  }
  return svg;
}

/** @param {string} name of a symbol of the sprite, which comes with the page */
function drawing(name) {
  let svg = drawings.get(name);
  if (!svg) {
    svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", `icon icon-${name}`);
    const sprite = /** @type {HTMLTemplateElement} */ (document.querySelector("#icons"));
    const symbol = sprite.content.getElementById(name);
    svg.setAttribute("viewBox", symbol?.getAttribute("viewBox") ?? "");
    svg.append(...symbol?.cloneNode(true).childNodes ?? []);
    drawings.set(name, svg);
  }
  return svg;
}

/**
 * Whether a key that is pressed belongs to the control that has the focus.
 * @param {KeyboardEvent} event
 * @returns {boolean}
 */
export function isTyping(event) {
  const target = /** @type {Element | null} */ (event.composedPath()[0] ?? null);
  return event.isComposing || Boolean(target?.matches?.("input, textarea, select, [contenteditable]"));
}
