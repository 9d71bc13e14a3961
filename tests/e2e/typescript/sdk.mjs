// The clients of @modelcontextprotocol/sdk: version 1 of the TypeScript SDK, which speaks the older era alone.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ResourceUpdatedNotificationSchema } from "@modelcontextprotocol/sdk/types.js";
import { obey } from "./remote_control.mjs";

const transports = {
  http: ({ url }) => new StreamableHTTPClientTransport(new URL(url)),
  sse: ({ url }) => new SSEClientTransport(new URL(url)),
  stdio: ({ command, args, env, cwd }) => new StdioClientTransport({ command, args, env, cwd, stderr: "ignore" }),
};

obey({
  async connect(how, updated) {
    const client = new Client({ name: "typescript 1", version: "1" });
    client.setNotificationHandler(ResourceUpdatedNotificationSchema, ({ params }) => updated(params.uri));
    await client.connect(transports[how.transport](how));
    return client;
  },
  callTool: (client, parameters, options) => client.callTool(parameters, undefined, options),
});
