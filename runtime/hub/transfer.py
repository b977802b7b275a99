"""A file by its URL, in as many tries as it takes.

What has arrived stays in `NAME.partial`, and the next try, of this process or of a later one, asks the server for the
rest (HTTP Range). No ETag is kept to prove that both halves are of one file: the caller knows the SHA-256 of what it
needs, and throws the file away if that is wrong. One process at a time fetches a file: the caller holds a lock.
"""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import cache
from .types import Cancel, DownloadError, Progress
from .waiting import in_thread, polled

TRIES = 3
PAUSE_S = 1.0  # between two tries: a network that changes, or a server that starts again, needs a moment
TIMEOUT_S = 15.0  # for an answer, and for each read
PIECE = 1 << 16  # bytes for one read: what a killed process loses at most
NUMBER = re.compile(r"\d{1,18}")
CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d+/(\d{1,18}|\*)")

Piece = tuple[int, int, bytes]  # position in the file, length of the file (0: not known), bytes


class Broken(Exception):
    """The connection broke; the message says how."""


class Refused(Broken):
    """The request got no answer, or not the file: no route, no permission, a certificate that is not trusted."""


def fetch(url: str, target: Path, *, progress: Progress, stage: str, cancel: Cancel) -> None:
    """Put the bytes behind `url` into `target`, after those that earlier tries brought.

    Raises Refused when another client may have more luck, DownloadError when the connection keeps breaking,
    ResourceError (disk), Cancelled.
    """
    partial = _partial(target)
    reason = ""
    try:
        for number in range(TRIES):
            if number:
                in_thread(lambda: time.sleep(PAUSE_S), cancel)
            try:
                _append(url, partial, progress, stage, cancel)
            except Refused as error:
                if not number:
                    raise
                reason = str(error)
            except Broken as error:
                reason = str(error)
            else:
                os.replace(partial, target)
                return
    except OSError as error:  # not of the network: those are Broken
        raise cache.cannot_write(target.parent, error) from error
    raise DownloadError(f"{target.name} did not arrive whole: {reason}. What has arrived is kept for the next try")


def arrived(folder: Path) -> int:
    """How many bytes earlier tries left in `folder`."""
    return sum(path.stat().st_size for path in folder.glob(_partial(folder / "*").name))


def _partial(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def _append(url: str, partial: Path, progress: Progress, stage: str, cancel: Cancel) -> None:
    with open(partial, "ab") as file:
        for position, total, data in polled(_rest(url, file.tell()), cancel):
            if position != file.tell():  # the server sends more than was asked for
                file.truncate(file.seek(position))
            file.write(data)
            progress(stage, file.tell(), total)


def _rest(url: str, have: int) -> Iterator[Piece]:
    """The pieces from byte `have` on, or from an earlier one if that is what the server sends."""
    try:
        response = _request(url, have)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return  # nothing is missing: the last try ended before it could rename the file
        raise Refused(str(error)) from error
    except (OSError, http.client.HTTPException) as error:
        raise Refused(str(error) or type(error).__name__) from error
    try:
        with response:
            yield from _pieces(response, have)
    except (OSError, http.client.HTTPException) as error:
        raise Broken(str(error) or type(error).__name__) from error


def _request(url: str, have: int) -> Any:
    headers = {"User-Agent": "halfbyte"}
    if have:
        headers["Range"] = f"bytes={have}-"
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)


def _pieces(response: Any, have: int) -> Iterator[Piece]:
    position, total = _extent(response, have)
    while data := response.read(PIECE):
        yield position, total, data
        position += len(data)
    if position < total:
        raise Broken(f"the connection ended after {position:,} of {total:,} bytes")


def _extent(response: Any, have: int) -> tuple[int, int]:
    """Where the answer begins in the file, and how long the file is."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        match = CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) > have:
            raise Broken("the server sent other bytes than it was asked for")
        return int(match[1]), 0 if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if NUMBER.fullmatch(length) else 0
