"""Entry points with planted faults: what the fuzzer must find."""

from __future__ import annotations

import os
import time


def untyped(data: bytes) -> None:
    if len(data) % 5 == 0:
        raise IndexError("index out of range")


def crash(data: bytes) -> None:
    if len(data) % 97 == 0:
        os._exit(139)


def endless(data: bytes) -> None:
    if len(data) % 97 == 0:
        time.sleep(600)


def slow(data: bytes) -> None:
    if len(data) % 97 == 0:
        time.sleep(1.05)
