// A small chart of what a figure was in the last minutes: a line drawn by hand, and its last value in words.

import { h } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [240, 48];
const FEWEST = 30;

export class Chart {
  /** @type {(number | null)[]} */ #values = [];
  #points;
  #format;

  /**
   * @param {string} label
   * @param {{points: number, format: (value: number) => string}} options how many values it shows, and how they are written
   */
  constructor(label, { points, format }) {
    this.#points = points;
    this.#format = format;
    this.line = drawn("path", { class: "line" });
    this.area = drawn("path", { class: "area" });
    const svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" });
    svg.append(this.area, this.line);
    this.value = h("dd", { class: "number" }, "–");
    this.most = h("span", { class: "quiet small number" });
    this.element = h("div", { class: "chart" }, h("dt", { class: "label" }, label), this.value, h("dd", { class: "drawing" }, this.most, svg));
  }

  /** @param {number | null} value null: there is none now */
  add(value) {
    this.#values.push(value);
    if (this.#values.length > this.#points) this.#values.shift();
    const most = Math.max(...this.#values.map((each) => each ?? 0));
    this.value.textContent = value === null ? "–" : this.#format(value);
    this.most.textContent = most ? `≤ ${this.#format(most)}` : "";
    // The first values need not be lost in a chart that is all but empty.
    const shown = Math.max(FEWEST, this.#values.length);
    const step = WIDTH / (shown - 1);
    const left = shown - this.#values.length;
    let line = "";
    let area = "";
    let from = -1;
    this.#values.forEach((each, i) => {
      const x = ((left + i) * step).toFixed(1);
      if (each === null) {
        if (from >= 0) area += `V${HEIGHT}H${from}Z`;
        from = -1;
        return;
      }
      const y = (HEIGHT - 2 - (HEIGHT - 4) * (most ? each / most : 0)).toFixed(1);
      line += `${from < 0 ? "M" : "L"}${x} ${y}`;
      area += from < 0 ? `M${x} ${HEIGHT}V${y}` : `L${x} ${y}`;
      if (from < 0) from = Number(x);
    });
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", from >= 0 ? `${area}V${HEIGHT}H${from}Z` : area);
  }
}

/** @param {string} tag @param {Record<string, string>} attributes */
function drawn(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
