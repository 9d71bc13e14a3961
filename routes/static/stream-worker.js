// Holds the streams of all tabs of a browser: one for each address that some tab follows, until the last one leaves.

import { Holder } from "./stream.js";

/** @type {Map<string, {holder: Holder, tabs: Set<string>}>} */
const streams = new Map();

function join(name, wish, tab) {
  let stream = streams.get(name);
  if (!stream || stream.holder.over) {
    stream?.holder.close();
    stream = { holder: new Holder(name, wish), tabs: new Set(stream?.tabs) };
    streams.set(name, stream);
  }
  stream.tabs.add(tab);
  stream.holder.welcome(tab);
}

function leave(name, tab) {
  const stream = streams.get(name);
  stream?.tabs.delete(tab);
  if (stream?.tabs.size === 0) {
    stream.holder.close();
    streams.delete(name);
  }
}

globalThis.addEventListener("connect", (/** @type {any} */ event) => {
  const [port] = event.ports;
  port.onmessage = ({ data: { kind, name, wish, tab } }) => {
    if (kind === "leave") return leave(name, tab);
    if (kind === "join") join(name, wish, tab);
    // Who asks whether they are still told, and is not, does not get an answer, and joins again.
    if (streams.get(name)?.tabs.has(tab)) port.postMessage("here");
  };
});
