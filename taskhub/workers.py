"""Several server processes behind one port: a supervisor that keeps each of them running, and replaces them in turn.

Each worker has a listening socket of its own, which the supervisor made and keeps open: what has connected to a worker
that died waits there for its successor, and is neither refused nor reset.
"""

import asyncio
import contextlib
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from taskhub.processes import Child, NotStarted, Processes, status_text

logger = structlog.stdlib.get_logger(__name__)

MAX_FAILURES: Final = 5
"""So many failures of one worker in a row, about 15 s of them, are no accident: who started this program must know."""
STEADY_S: Final = 10.0
"""A worker that ends sooner than this after it was ready counts as a failure, as one that never got ready does."""
MIN_BACKOFF_S: Final = 0.5


class WorkersFailed(Exception):
    """A worker could not be started, or not kept running; the message says which, and why."""


class Workers:
    """One server process on each socket of `sockets`.

    The first one is started alone: it brings the database to its newest schema, and what keeps it from starting is said
    once. After SIGHUP one worker after the other is replaced by a process that reads source and settings anew.
    `on_ready` is called when all accept connections.
    """

    def __init__(
        self,
        processes: Processes,
        sockets: Sequence[socket.socket],
        *,
        on_ready: Callable[[], None],
        min_backoff_s: float = MIN_BACKOFF_S,
        steady_s: float = STEADY_S,
    ) -> None:
        self._processes = processes
        self._on_ready = on_ready
        self._min_backoff_s = min_backoff_s
        self._steady_s = steady_s
        self._workers = [_Worker(number, sock) for number, sock in enumerate(sockets, 1)]
        self._hangup = asyncio.Event()
        self._terminal = sys.stdin is not None and sys.stdin.isatty()

    async def run(self) -> int:
        """Serve until SIGINT or SIGTERM, or until a worker keeps failing. Answers the exit status."""
        self._processes.stop_on_signals()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hung_up)
        failed = False
        replacing = asyncio.create_task(self._replace_all_when_asked())
        try:
            await self._start_all()
            self._on_ready()
            async with asyncio.TaskGroup() as keepers:
                for worker in self._workers:
                    keepers.create_task(self._keep(worker))
        except* NotStarted as stopped:
            # Before all were ready; a stop meanwhile is no failure.
            failed = not self._processes.stop.is_set()
            if failed:
                logger.error("the server could not start", reason=_first(stopped))
        except* WorkersFailed as error:
            failed = True
            logger.error("giving up", reason=_first(error))
        finally:
            replacing.cancel()
            in_good_order = await self._processes.end()
        return 0 if in_good_order and not failed else 1

    def _hung_up(self) -> None:
        """SIGHUP: from an operator it asks for new processes, from a terminal that was closed for an end."""
        if self._terminal and not os.isatty(sys.stdin.fileno()):
            self._processes.stop.set()
        else:
            self._hangup.set()

    async def _replace_all_when_asked(self) -> None:
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            logger.info("replacing every worker, one after the other")
            for worker in self._workers:
                if not await worker.ask_for_successor():
                    break

    async def _start_all(self) -> None:
        """Raises NotStarted."""
        first, *others = self._workers
        await self._start(first)
        async with asyncio.TaskGroup() as starting:
            for worker in others:
                starting.create_task(self._start(worker))

    async def _start(self, worker: "_Worker") -> None:
        worker.child = await self._processes.start(worker.sock, "worker", number=worker.number)
        worker.ready_at = asyncio.get_running_loop().time()

    async def _keep(self, worker: "_Worker") -> None:
        """Keep a worker running until the supervisor stops. Raises WorkersFailed."""
        stopping = asyncio.create_task(self._processes.stop.wait())
        try:
            while not stopping.done():
                asked = asyncio.create_task(worker.asked.wait())
                ended = worker.child.ended
                await asyncio.wait({stopping, asked, ended}, return_when=asyncio.FIRST_COMPLETED)
                asked.cancel()
                if stopping.done():
                    return
                if ended.done():
                    await self._revive(worker, ended.result())
                    worker.asked.clear()
                    worker.answer(True)
                else:
                    await self._replace(worker)
        finally:
            stopping.cancel()

    async def _revive(self, worker: "_Worker", status: int) -> None:
        """Start the successor of a worker that ended by itself, again and again if need be. Raises WorkersFailed."""
        self._processes.forget(worker.child)
        why = status_text(status)
        logger.error("a worker ended unexpectedly", worker=worker.number, pid=worker.child.process.pid, status=why)
        lived_s = asyncio.get_running_loop().time() - worker.ready_at
        worker.failures = 0 if lived_s >= self._steady_s else worker.failures + 1
        while not self._processes.stop.is_set():
            if worker.failures >= MAX_FAILURES:
                raise WorkersFailed(
                    f"worker {worker.number} failed {worker.failures} times in a row, at last with: {why}"
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._processes.stop.wait(), self._backoff_s(worker.failures))
                return
            try:
                await self._start(worker)
            except NotStarted as error:
                if error.stopping:
                    return
                worker.failures += 1
                why = str(error)
                logger.error("a worker could not start", worker=worker.number, reason=why)
                continue
            logger.info("a worker was started again", worker=worker.number, pid=worker.child.process.pid)
            return

    def _backoff_s(self, failures: int) -> float:
        """0 for a worker that had served for long, then 0.5 s, doubled with each failure in a row."""
        return math.ldexp(self._min_backoff_s, failures - 1) if failures else 0.0

    async def _replace(self, worker: "_Worker") -> None:
        """Start a successor beside a worker, and let that one go when the successor accepts connections."""
        worker.asked.clear()
        predecessor = worker.child
        try:
            await self._start(worker)
        except NotStarted as error:
            if not error.stopping:
                said = "the new process could not start; the previous ones keep serving"
                logger.error(said, worker=worker.number, reason=str(error))
            worker.answer(False)
            return
        logger.info("a worker was replaced", worker=worker.number, pid=worker.child.process.pid)
        # Its streams come back before the next worker's are sent away.
        self._processes.replace(predecessor).add_done_callback(lambda _: worker.answer(True))


class _Worker:
    """A place among the workers: its socket, the process that serves it now, and its failures in a row."""

    child: Child

    def __init__(self, number: int, sock: socket.socket) -> None:
        self.number = number
        self.sock = sock
        self.failures = 0
        self.ready_at = 0.0
        self.asked = asyncio.Event()
        self._answer: asyncio.Future[bool] | None = None

    async def ask_for_successor(self) -> bool:
        """Have the process replaced; whether a successor has taken over and the process has left."""
        self._answer = asyncio.get_running_loop().create_future()
        self.asked.set()
        return await self._answer

    def answer(self, replaced: bool) -> None:
        """Tell who asked for a successor, if anybody waits for it."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(replaced)


def _first(group: BaseExceptionGroup[BaseException]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
