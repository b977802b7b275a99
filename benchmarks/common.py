"""What all benchmarks share: what they are asked on the command line, models by name, and numbers of repeated runs."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from halfbyte import HalfbyteError
from numpy.typing import NDArray

HERE = Path(__file__).parent
RESULTS = HERE / "results"
TEXT = HERE / "text.txt"
REAL_MODELS = ("smollm2", "gemma3-270m")


def give_up(message: str) -> NoReturn:
    """End the program because something it needs is missing: one line, exit code 2."""
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(2)


def note(message: str) -> None:
    """Tell whoever waits what is being measured; not part of the results."""
    sys.stderr.write(f"{message}\n")


def parser(description: str | None, *, models: Sequence[str] = REAL_MODELS) -> argparse.ArgumentParser:
    """An argument parser with the options that all benchmarks have."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    made.add_argument(
        "--model", action="append", dest="models", metavar="NAME|PATH", help=f"default: {' '.join(models)}; repeatable"
    )
    made.add_argument("--threads", type=positive, default=2, help="threads of either program")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    made.set_defaults(default_models=tuple(models))
    return made


def positive(text: str) -> int:
    """For arguments that count something."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def add_peer_options(made: argparse.ArgumentParser, flash_attention: str = "auto") -> None:
    """How llama.cpp is run."""
    made.add_argument("--flash-attention", choices=("auto", "off", "on"), default=flash_attention, help="of llama.cpp")
    made.add_argument("--omp-wait", choices=("default", "passive", "active"), default="default", help="of llama.cpp")


def apply_peer_options(args: argparse.Namespace) -> None:
    """To be called before llama.cpp is loaded, which reads the environment."""
    if args.omp_wait != "default":
        os.environ["OMP_WAIT_POLICY"] = args.omp_wait


def chosen_models(args: argparse.Namespace) -> list[str]:
    """The models asked for, or the benchmark's own."""
    return list(args.models or args.default_models)


def resolve(name: str) -> Path:
    """The file of a model: a path, a name that `halfbyte pull` knows, or synthetic:RECIPE[@SHAPE], made if absent."""
    from halfbyte.runtime import hub

    if name.startswith("synthetic:"):
        from .synthetic import ensure

        return ensure(name.partition(":")[2])
    try:
        return hub.resolve(name)
    except HalfbyteError as error:
        give_up(f"{name}: {error}")


def read_anew(path: Path) -> None:
    """Let the system forget a file, so that it comes from the disk as after a start of the machine: pages of one that
    was just written are as small as its writes were.
    """
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def label(name: str) -> str:
    """What a model is called in a table: a name as it is, a path without its folders."""
    return Path(name).stem if name.endswith(".gguf") else name


def cache_dir() -> Path:
    """Where synthetic models and the reference's logits are kept: outside the repository, safe to delete."""
    from halfbyte.runtime import settings

    folder = settings.home() / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Runs:
    """Numbers of repeated runs."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    def ratio(self, other: Runs) -> Runs:
        """Run by run: what disturbs a round disturbs both of its halves."""
        return Runs(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))

    def show(self, digits: int = 1) -> str:
        """The median and, in brackets, the lowest and the highest."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"

    def as_json(self) -> dict[str, float | list[float]]:
        return {"median": self.median, "low": self.low, "high": self.high, "runs": list(self.values)}


def random_tokens(count: int, vocab_size: int, seed: int) -> NDArray[np.int32]:
    """Token ids, int32 [count], the same for every program and every run of this one."""
    return np.random.default_rng(seed).integers(0, vocab_size, count, np.int32)
