// The clients of @modelcontextprotocol/client: version 2 of the TypeScript SDK, which speaks both eras.
import { Client, SSEClientTransport, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { obey } from "./remote_control.mjs";

const transports = {
  http: ({ url }) => new StreamableHTTPClientTransport(new URL(url)),
  sse: ({ url }) => new SSEClientTransport(new URL(url)),
  stdio: ({ command, args, env, cwd }) => new StdioClientTransport({ command, args, env, cwd, stderr: "ignore" }),
};

obey({
  async connect(how, updated) {
    const mode = how.era === "legacy" ? "legacy" : { pin: how.era };
    const client = new Client({ name: "typescript 2", version: "1" }, { versionNegotiation: { mode } });
    client.setNotificationHandler("notifications/resources/updated", ({ params }) => updated(params.uri));
    await client.connect(transports[how.transport](how));
    return client;
  },
  callTool: (client, parameters, options) => client.callTool(parameters, options),
});
