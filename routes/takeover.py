"""Taking a connection over from aiohttp once the response head is out.

aiohttp keeps a parser, a request and a task with its stack for as long as a response lasts: eleven kilobytes for each
idle stream. A stream needs none of that, so its connection gets a protocol of the engine's own, and aiohttp is left
with a handler that has returned.

This leans on what aiohttp does not promise, and all of that is here: its protocol forgets a transport that it no longer
has, unregisters in `connection_lost`, and ends its task quietly after a response that closes the connection.
Where another protocol has the connection, streams fall back to an ordinary handler (outlet.py).
"""

from collections.abc import Callable

import structlog
from aiohttp import web

from broadcaster.connection import Connection
from broadcaster.subscriber import Subscriber

logger = structlog.get_logger("taskhub.stream")


def take_over(
    request: web.Request, subscriber: Subscriber, on_lost: Callable[[Subscriber], None], *, write_timeout_s: float
) -> bool:
    """Make the subscriber the only one who hears of this connection, and start it.

    The response head must have been sent. The handler must then return its response without another await, and the
    response's `prepare` and `write_eof` must do nothing. False, and nothing has changed, where this cannot be done.
    """
    protocol, transport, task = request.protocol, request.transport, request.task
    if transport is None or transport.get_protocol() is not protocol:
        return False
    connection = Connection(subscriber, on_lost)
    connection.attach(transport, write_timeout_s=write_timeout_s)
    # Without a transport, nothing that aiohttp does at the end of its task reaches the connection.
    protocol.transport = None
    task.add_done_callback(lambda _: protocol.connection_lost(None))
    try:
        subscriber.start(connection)
    except Exception:
        logger.exception("the stream could not begin", stream=subscriber.id)
        connection.abort()  # the client comes back; everybody else hears of it from the connection
    return True
