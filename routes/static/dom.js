// Making elements. Text is only ever text: nothing here parses HTML, and what people write cannot become markup.

const SVG = "http://www.w3.org/2000/svg";
const SPRITE = new URL("./icons.svg", import.meta.url).href;

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
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", `icon icon-${name}`);
  if (label) {
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
  } else {
    svg.setAttribute("aria-hidden", "true");
  }
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `${SPRITE}#${name}`);
  svg.append(use);
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
