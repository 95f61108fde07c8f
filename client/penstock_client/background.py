"""One event loop in a thread of its own, shared by all blocking sessions of a process.

It starts with the first session and stops with the last, or at exit. uvloop where it is installed. grpc.aio serves every
event loop of a process from one queue and wakes them all: the one that comes late finds nothing to read, which is no
fault (grpc/grpc#25364).

    users > 0      the thread runs
    users == 0     there is no thread

A forked child has a copy of all of this and no thread: the loop and the sessions stay its parent's.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

_T = TypeVar("_T")


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _ignore_late_wake_up(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handle what no task has handled, but for grpc.aio's late wake-ups."""
    if isinstance(context.get("exception"), BlockingIOError) and "PollerCompletionQueue" in str(context.get("message")):
        return
    loop.default_exception_handler(context)


class User(Protocol):
    """A session on the loop, as far as the loop knows it."""

    def forked_off(self) -> None:
        """Hear, in a forked child, that it stays the parent's."""

    def leave_at_exit(self) -> None:
        """Hear that the loop is about to stop for good: who waits for answers gets the session's end, and no error."""


class BackgroundLoop:
    """The loop, its thread, and how many sessions use them."""

    def __init__(self) -> None:
        self._sessions: weakref.WeakSet[User] = weakref.WeakSet()
        self._kept: list[object] = []  # The parent's: what is freed with it in a child would warn, or close.
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def acquire(self) -> asyncio.AbstractEventLoop:
        """Return the running loop, started where it is not; each call needs a release()."""
        with self._lock:
            self._users += 1
            if self._loop is None:
                loop = _new_event_loop()
                loop.set_exception_handler(_ignore_late_wake_up)
                # A daemon thread: a session that was never closed must not keep the process from ending.
                self._thread = threading.Thread(target=_run, args=(loop,), name="penstock client", daemon=True)
                self._thread.start()
                self._loop = loop
            return self._loop

    def tell(self, session: User) -> None:
        """Have *session* told of every fork, and of the exit, for as long as anybody has it."""
        self._sessions.add(session)

    def after_fork(self) -> None:
        """Leave to the parent, in a forked child, what is the parent's; a session of the child's own begins anew."""
        for session in self._sessions:
            session.forked_off()
        self._kept += [self._loop, *self._sessions]
        self._sessions.clear()
        self._begin()

    def release(self) -> None:
        """Give the loop back; the last one stops it and waits for its thread."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._stop()

    def stop_at_exit(self) -> None:
        """Stop the loop whoever still uses it: the interpreter is about to go."""
        for session in list(self._sessions):
            session.leave_at_exit()
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._loop is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop = self._thread = None


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run *loop* until it is stopped, then end what is left on it, in its own thread."""
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def run_on(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, _T]) -> _T:
    """Run *work* on *loop* from another thread and wait for its result; a wait that is interrupted ends the work, too."""
    running = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return running.result()
    except BaseException:
        running.cancel()
        raise


background = BackgroundLoop()
atexit.register(background.stop_at_exit)
os.register_at_fork(after_in_child=background.after_fork)
