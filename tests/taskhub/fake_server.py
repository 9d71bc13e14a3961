"""A server small enough to supervise in a test: it answers every connection with the text of a file, and logs its life.

Arguments: the file, the log, and what the supervisor adds. The file's first word decides what it does:
`fail` (says so and exits 1), `broken` (says that its source is and exits 1), `crash` (exits 3 without a word), `hang`
(never gets ready), `stubborn` (serves and never leaves), else it serves.
"""

import asyncio
import os
import socket
import sys
import time
from pathlib import Path

from taskhub.control import Control


async def serve(text: str, listening: socket.socket, control: Control) -> str:
    """Serve until told to end; returns what was told."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = (await reader.readline()).decode().strip()
        if said in ("exit", "die"):
            os._exit(0 if said == "exit" else 4)
        writer.write(text.encode())
        writer.close()

    server = await asyncio.start_server(answer, sock=listening)
    control.ready("http://fake")
    reason = await control.wait()
    if text.startswith("stubborn"):
        await asyncio.sleep(600)
    server.close()
    return reason


def main() -> int:
    text, log = Path(sys.argv[1]).read_text(), Path(sys.argv[2])
    listening, line, turn, *_ = sys.argv[sys.argv.index("--supervised") + 1].split(":")
    control = Control(socket.socket(fileno=int(line)))
    match text.split()[0]:
        case "fail":
            control.failed("it was told to")
            return 1
        case "broken":
            control.broken("line 7 of it")
            return 1
        case "crash":
            return 3
        case "hang":
            time.sleep(600)
    reason = asyncio.run(serve(text, socket.socket(fileno=int(listening)), control))
    with log.open("a") as file:
        file.write(f"{turn} {text.split()[-1]} {reason}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
