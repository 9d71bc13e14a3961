// Follows a stream with a page's own module, and prints what it tells, a line each. The address is the argument.
import { StreamReader } from "../../routes/static/stream.js";

let reader;
reader = new StreamReader({
  url: process.argv[2],
  tell: (told) => console.log(JSON.stringify({ ...told, now: Date.now(), position: reader?.position ?? null })),
});
process.stdin.on("end", () => process.exit()).resume();
