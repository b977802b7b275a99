"""Calls that may block, waited for in a way that a cancel can end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from ...formats.errors import Cancelled
from .types import Cancel

POLL_S = 0.1  # how long a cancel may go unnoticed

T = TypeVar("T")


def in_thread(work: Callable[[], T], cancel: Cancel, limit: float | None = None) -> T:
    """Run `work` in a thread that may be left behind: name look-ups and reads cannot be interrupted otherwise.

    The thread is a daemon: it does not keep the process alive. Raises what `work` raised, Cancelled, TimeoutError.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, daemon=True, name="halfbyte-hub")
    thread.start()
    waited = 0.0
    while thread.is_alive():
        if cancel:
            raise Cancelled("the download was stopped; what has arrived is kept for the next try")
        if limit is not None and waited >= limit:
            raise TimeoutError(f"no answer within {limit} s")
        thread.join(POLL_S)
        waited += POLL_S
    if errors:
        raise errors[0]
    return results[0]


def polled(items: Iterator[T], cancel: Cancel) -> Iterator[T]:
    """The same items, each waited for in a thread. A thread that is left behind drops its item: only the caller acts.

    The iterator owns what it reads from: to close a connection under a thread that reads from it would wait as well.
    """
    while (item := in_thread(lambda: next(items, None), cancel)) is not None:
        yield item
