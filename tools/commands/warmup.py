"""`halfbyte warmup`: compile what a model needs before it is needed."""

from __future__ import annotations

import sys
import time

import click

from ...formats.errors import ResourceError
from .. import console
from ..options import LoadChoices, load_model, loading_options
from ..progress import ProgressLine


@click.command()
@click.argument("model")
@loading_options
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def command(model: str, loading: LoadChoices, as_json: bool) -> None:
    """Compile the kernels MODEL needs on this processor, so that later starts are fast.

    Compiled kernels are kept in the cache folder (`halfbyte doctor` shows it) until Halfbyte, Numba or the processor
    changes.
    """
    if loading.backend == "cpu":
        _check_kept()
    counter = Counter()
    begin = time.monotonic()
    with ProgressLine() as line:
        counter.next = line
        with load_model(model, loading, counter) as loaded:
            loaded.generate([loaded.tokenizer.bos_id or 0], max_tokens=1, temperature=0).read()
    result = {"model": model, "kernels_compiled": counter.compiled, "seconds": time.monotonic() - begin}
    if as_json:
        console.write_json(result)
    else:
        console.say(f"{model}: {counter.compiled} kernels compiled in {result['seconds']:.1f} s, ready")


def _check_kept() -> None:
    from ...runtime.backends.cpu import objects  # Numba, which `halfbyte warmup --help` does without
    from ...runtime.settings import home

    if not objects.are_kept():
        raise ResourceError(
            f"{home()}: compiled kernels cannot be kept there, nobody else may be able to write to it; "
            "make it writable, or choose another folder with HALFBYTE_HOME"
        )


class Counter:
    """A progress callback that remembers how many kernels were compiled and passes everything on."""

    def __init__(self) -> None:
        self.compiled = 0
        self.next = ProgressLine(enabled=False)
        self._announced = False

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage == "compile":
            self.compiled = done
            if not self._announced and not console.is_terminal(sys.stderr):
                console.note(f"compiling {total} kernels")  # a log gets one line instead of a moving one
                self._announced = True
        self.next(stage, done, total)
