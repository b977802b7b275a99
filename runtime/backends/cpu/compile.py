"""Compile what is missing, in child processes, and report a real count.

LLVM holds the GIL while it compiles and aborts its process when it meets an instruction the target lacks. In a child
neither freezes nor kills the program that uses Halfbyte, two children use two cores, and Numba is never imported by a
process that finds its kernels in the cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import SimpleQueue
from typing import IO

from ....formats.errors import Cancelled
from ...settings import compiler_environment
from ..base import CancelFlag
from . import objects

Report = Callable[[int, int], None]  # done, total

# Kernels that take longest go first, so that no child is left alone with one at the end.
_SLOW = ("linear_gemm", "linear_glu", "attention", "linear_rows", "expert_rows")


def ensure_compiled(
    names: Iterable[str], *, workers: int, report: Report | None = None, cancel: CancelFlag | None = None
) -> int:
    """Make sure every named kernel is cached; returns how many had to be compiled.

    Raises KernelError with the child's own words when a kernel does not compile, Cancelled when told to stop.
    """
    wanted = sorted(set(names))
    missing = [name for name in wanted if objects.read(name) is None]
    if missing:
        if not objects.kernel_dir().is_dir():  # somebody emptied the cache while this process runs
            objects.kernel_dir.cache_clear()
        missing.sort(key=lambda name: (not name.startswith(_SLOW), name))
        _Compilation(missing, workers, report, cancel).run()
    return len(missing)


class _Compilation:
    """Children that take names from one list until it is empty."""

    def __init__(self, names: list[str], workers: int, report: Report | None, cancel: CancelFlag | None) -> None:
        self._names, self._total = iter(names), len(names)
        most = 1 if getattr(sys, "frozen", False) else workers  # Numba compiles one function at a time in a process
        self._workers = max(1, min(most, len(names)))
        self._report, self._cancel = report, cancel
        self._lock = threading.Lock()
        self._events: SimpleQueue[BaseException | None] = SimpleQueue()  # a kernel is done, or an error
        self._stop = False

    def run(self) -> None:
        threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(self._workers)]
        for thread in threads:
            thread.start()
        try:
            self._wait()
        finally:
            self._stop = True
            for thread in threads:
                thread.join()

    def _wait(self) -> None:
        from queue import Empty

        done = 0
        if self._report:
            self._report(0, self._total)
        while done < self._total:
            if self._cancel:
                raise Cancelled("cancelled while kernels were being compiled")
            try:
                error = self._events.get(timeout=0.02)
            except Empty:
                continue
            if error is not None:
                raise error
            done += 1
            if self._report:
                self._report(done, self._total)

    def _next(self) -> str | None:
        with self._lock:
            return None if self._stop else next(self._names, None)

    def _serve(self) -> None:
        """Compile names until there are none left: in a child process, or here where a program cannot start one."""
        try:
            if getattr(sys, "frozen", False):  # sys.executable is the application, not Python
                self._compile_here()
            else:
                import tempfile  # here: starts that find all kernels compiled do without

                with tempfile.TemporaryFile(dir=objects.kernel_dir()) as errors:
                    self._feed(_start_child(errors), errors)
        except Exception as error:  # whatever it is, the waiting thread has to know: nobody else would end its wait
            self._events.put(objects.KernelError(f"the compiler process could not be used: {error}"))

    def _compile_here(self) -> None:
        from .jit import compile_kernel

        try:
            while (name := self._next()) is not None:
                objects.write(objects.kernel_dir(), name, compile_kernel(name))
                self._events.put(None)
        except Exception as error:  # whatever it is, the waiting thread has to know
            self._events.put(objects.KernelError(f"a kernel did not compile: {error}"))

    def _feed(self, child: subprocess.Popen[str], errors: IO[bytes]) -> None:
        """A name a line in, the name back when its file is in place; `errors` is what else the child says."""
        watcher = threading.Thread(target=self._kill_when_stopped, args=(child,), daemon=True)
        watcher.start()
        try:
            while (name := self._next()) is not None:
                assert child.stdin and child.stdout  # both are pipes
                child.stdin.write(name + "\n")
                child.stdin.flush()
                answer = child.stdout.readline().rstrip("\n")
                if answer != name:
                    self._events.put(_failure(name, answer, child, errors))
                    return
                self._events.put(None)
        except OSError as error:
            self._events.put(objects.KernelError(f"the compiler process stopped: {error}"))
        finally:
            if self._stop:
                child.kill()
            elif child.stdin:
                child.stdin.close()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe:
                    pipe.close()

    def _kill_when_stopped(self, child: subprocess.Popen[str]) -> None:
        while child.poll() is None:
            if self._stop:
                child.kill()
                return
            try:
                child.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                continue


def _start_child(errors: IO[bytes]) -> subprocess.Popen[str]:
    """`errors` is a file: a pipe that nobody reads stops a child that says much (PYTHONVERBOSE), for ever."""
    module = f"{__package__}.compile"
    arguments = (str(objects.kernel_dir()), objects.fingerprint())
    code = f"import importlib; importlib.import_module({module!r}).child_main(*{arguments!r})"
    environment = compiler_environment(PYTHONPATH=os.pathsep.join(entry for entry in sys.path if entry))
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment,
    )  # fmt: skip


def _failure(name: str, answer: str, child: subprocess.Popen[str], errors: IO[bytes]) -> objects.KernelError:
    child.kill()
    child.wait()
    errors.seek(0)
    detail = errors.read().decode(errors="replace").strip()
    last = detail.splitlines()[-1] if detail else answer or "no message"
    return objects.KernelError(f"kernel {name} did not compile: {last}")


def child_main(directory: str, fingerprint: str) -> None:
    """The child: compile the kernels named on standard input until it ends (also when the parent dies)."""
    if objects.fingerprint() != fingerprint:
        raise SystemExit("halfbyte was changed or updated while this program was running: start it again")
    from .jit import compile_kernel

    for line in sys.stdin:
        name = line.strip()
        objects.write(Path(directory), name, compile_kernel(name))
        sys.stdout.write(name + "\n")
        sys.stdout.flush()
