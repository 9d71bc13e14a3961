// A stream consumer as a Node program writes it: prints what npm's `eventsource` dispatches, one JSON object per line.
// Usage: node eventsource_client.mjs URL EVENT-NAME…
import { EventSource } from "eventsource";

const [url, ...names] = process.argv.slice(2);
const source = new EventSource(url);
const say = (entry) => process.stdout.write(JSON.stringify(entry) + "\n");

for (const name of names) {
  source.addEventListener(name, (event) =>
    say({ event: event.type, id: event.lastEventId, data: JSON.parse(event.data) }));
}
// Its reconnect timer does not keep a process alive; a program that listens has something else that does.
process.stdin.resume();
source.addEventListener("error", () => say({ event: "(error)", id: "", data: { state: source.readyState } }));
