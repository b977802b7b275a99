"""Quantize, and die at a random call: `python -m tests.quantize.killing FOLDER KILLS`, for test_killed.

Copies of this process are forked, one after the other. Each goes on with what the one before left, and kills itself
with SIGKILL at one of the calls that change files, some in the middle of a write; or it gets to the end, and the next
one begins anew. Prints one line of JSON: kills, how many copies got to the end, how many of those went on with
something, and whether every target was old or new, and new and alone at each end.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
from halfbyte.converters.quantize import quantize
from halfbyte.converters.quantize import run as quantize_run
from halfbyte.formats.gguf import GGMLType, GGUFWriter, output

from ..faults import Disk

OLD = b"what was there before"


def small_model(path: Path) -> Path:
    """Eight matrices of different heights and a vector, in F16 and F32."""
    writer = GGUFWriter(path)
    writer.add("general.architecture", "llama")
    shapes = {f"blk.{i}.ffn_up.weight": (5 + 7 * i, 96) for i in range(8)} | {"output_norm.weight": (96,)}
    for name, shape in shapes.items():
        writer.add_tensor(name, shape, GGMLType.F16 if len(shape) > 1 else GGMLType.F32)
    rng = np.random.default_rng(3)
    with writer.open():
        for name, shape in shapes.items():
            writer.write_tensor(name, rng.standard_normal(shape).astype("f2" if len(shape) > 1 else "f4"))
    return path


def main(folder: Path, kills: int) -> dict[str, int]:
    model, target = small_model(folder / "model.gguf"), folder / "out.gguf"
    output.SYNC_BYTES = 0  # every tensor is claimed at once
    quantize_run.PIECE_WEIGHTS = 96 * 11
    os.fsync = lambda fd: None  # no power is cut here
    quantize(model, target, "Q4_0")
    new = target.read_bytes()
    with Disk() as disk:
        run(model, target)
    calls, rng = len(disk.calls), random.Random(1)
    about = {"calls": calls, "kills": 0, "resumed": 0, "ends": 0, "right": True}
    target.write_bytes(OLD)
    while about["kills"] < kills:
        moment, torn = rng.randrange(calls), rng.random() < 0.5
        if not (child := os.fork()):
            with Disk(moment, lambda: os.kill(os.getpid(), signal.SIGKILL), torn=torn):
                os._exit(10 + run(model, target))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == -signal.SIGKILL:
            about["kills"] += 1
            about["right"] &= target.read_bytes() in (OLD, new)
        else:
            about["ends"] += 1
            about["resumed"] += code - 10  # an error is 1
            about["right"] &= target.read_bytes() == new and len([*folder.iterdir()]) == 2
            target.write_bytes(OLD)
    return about


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage()


def run(model: Path, target: Path) -> bool:
    """Quantize; whether it went on with what was there."""
    heard, logger = _Heard(), logging.getLogger("halfbyte")
    logger.handlers = [heard]
    quantize(model, target, "Q4_0", resume=True, threads=1)
    return "resuming" in heard.text


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
