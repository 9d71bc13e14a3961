// MCP clients that a test controls: one request per line of standard input, one answer per line of standard output.
//
// {"id": 1, "client": "a", "do": "open", "with": {"transport": "http" | "sse" | "stdio", "era", …}}
// {"id": 2, "client": "a", "do": "callTool" | "listTools" | …, "with": [arguments of the client's method]}
// {"id": 3, "client": "a", "do": "cancel", "with": ID OF A REQUEST}
// Answers are {"id", "result"} or {"id", "error"}; {"client", "updated": URI} tells of a resource that changed, and
// {"client", "ended": REASON} of a subscription.
import { createInterface } from "node:readline";

const clients = new Map();
const running = new Map();
const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const told = (error) =>
  ({ name: error.name, code: error.code ?? null, message: String(error.message), data: error.data ?? null });

export function obey(library) {
  const actions = {
    async open({ client: name, with: how }) {
      const client = await library.connect(how, (uri) => say({ client: name, updated: uri }));
      clients.set(name, client);
      return { server: client.getServerVersion(), capabilities: client.getServerCapabilities() };
    },
    async close({ client: name }) {
      await clients.get(name).close();
      clients.delete(name);
    },
    async callTool({ id, client, with: [parameters] }) {
      const abort = new AbortController();
      running.set(id, abort);
      try {
        return await library.callTool(clients.get(client), parameters, { signal: abort.signal });
      } finally {
        running.delete(id);
      }
    },
    cancel({ with: id }) {
      running.get(id).abort("the test wants no answer");
    },
    async listen({ client: name, with: [filter] }) {
      const subscription = await clients.get(name).listen(filter);
      subscription.closed.then((reason) => say({ client: name, ended: reason }));
      return subscription.honoredFilter;
    },
  };
  const other = ({ client, do: method, with: parameters }) => clients.get(client)[method](...parameters);
  answer((request) => (actions[request.do] ?? other)(request));
}

// Answer each request with what `handle` returns of it, or throws.
export function answer(handle) {
  createInterface({ input: process.stdin }).on("line", async (line) => {
    const request = JSON.parse(line);
    try {
      say({ id: request.id, result: (await handle(request)) ?? null });
    } catch (error) {
      say({ id: request.id, error: told(error) });
    }
  }).on("close", () => process.exit());
}
