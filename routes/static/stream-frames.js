// A stream of events as it comes from the network, taken apart.

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
