"""Loading a model: from a name to the parts that `Model` is made of.

The work runs on a thread of its own, so that the caller can be released within milliseconds when it is cancelled or
gets a Ctrl-C, whatever the loading thread is busy with; that thread then stops at its next report of progress and
throws away what it has. Progress is reported on the caller's thread.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ..formats.errors import Cancelled, InvalidRequest, ModelFileError
from ..formats.gguf import GGUFFile
from . import hub
from .backends.base import Backend, CancelFlag, Executor, Progress, checked_flag
from .backends.offload import offloading
from .backends.placement import Placement, placement_of
from .cache.kv import KV_TYPES, exact_kv_type
from .engine.capacity import PARALLEL, pool_pages
from .graph.ir import Graph
from .models import ModelSpec, build_model
from .step import PAGE
from .tokenize import Tokenizer, tokenizer_from_metadata
from .topology import physical_cores, usable_cpus

DEFAULT_CONTEXT = 8192  # or what the model was trained with, if that is less: more costs memory that few requests use
STEP_TOKENS = 512  # largest step: enough for matrix products to be at full speed, little enough to be shared fairly
POLL_SECONDS = 0.1  # how often the waiting thread looks up, for Ctrl-C on Windows: each time it takes Python's lock
# Loads take turns at what holds Python's lock: those that were given up would only delay the caller and each other.
_READING = threading.Lock()
EXIT_SECONDS = 2.0  # how long the end of the process waits for loads that were given up


@dataclass(frozen=True)
class Facts:
    """What there is to say about a loaded model; holds neither weights nor memory."""

    path: Path
    name: str
    architecture: str
    context_length: int
    vocab_size: int
    n_layer: int
    n_embd: int
    n_params: int
    pooling: str | None
    context: int
    threads: int
    backend: str


@dataclass(frozen=True)
class Loaded:
    """The parts of a model. The file is closed: the weights keep it mapped for as long as the executor lives."""

    facts: Facts
    tokenizer: Tokenizer
    executor: Executor


@dataclass(frozen=True)
class LoadOptions:
    """How to load; None means the default."""

    context: int | None = None
    threads: int | None = None
    backend: str = "cpu"
    parallel: int = PARALLEL
    kv_type: str | None = None
    gpu_layers: int | str = 0  # or "all", "auto"
    tensor_split: Sequence[float] = ()
    place: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("context", "threads", "parallel"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidRequest(f"{name}={value!r}: a whole number of at least 1 is needed")
        if self.backend not in BACKENDS:
            raise InvalidRequest(f"backend={self.backend!r}: known backends are {', '.join(map(repr, BACKENDS))}")
        if self.kv_type not in (None, *KV_TYPES):
            raise InvalidRequest(f"kv_type={self.kv_type!r}: known types are {', '.join(map(repr, KV_TYPES))}")
        if self.placement is not None and (self.backend != "cpu" or self.kv_type == "f32"):
            raise InvalidRequest('layers on GPUs go with backend="cpu" and kv_type="f16", which is what they keep')

    @property
    def placement(self) -> Placement | None:
        """Where layers go; None if all stay. Raises InvalidRequest for what no placement is."""
        return placement_of(self.gpu_layers, self.tensor_split, self.place)


def load(
    path_or_name: str | os.PathLike[str], options: LoadOptions, *, progress: Progress | None, cancel: CancelFlag | None
) -> Loaded:
    """Load on a thread of its own; see `_load` for the stages. Raises Cancelled within 50 ms of the flag being set."""
    checked_flag(cancel)
    flag = CancelFlag()  # tells the loading thread that nobody waits any more

    def work(report: Progress) -> Loaded:
        return _load(path_or_name, options, report, flag)

    return run_cancellable(work, flag, progress=progress, cancel=cancel)


def run_cancellable(
    work: Callable[[Progress], Loaded], flag: CancelFlag, *, progress: Progress | None, cancel: CancelFlag | None
) -> Loaded:
    """Run `work(report)` on another thread and wait for it; `flag` is set when the wait is given up."""
    events: SimpleQueue[Any] = SimpleQueue()
    cancel = CancelFlag() if cancel is None else cancel
    thread = threading.Thread(target=_worker, args=(work, flag, cancel, events), name="halfbyte-load", daemon=True)
    # A daemon that Python ends inside a C++ library takes the process down: "terminate called", an abort. Before the
    # start: the thread takes itself off that list when it is done.
    atexit.register(thread.join, EXIT_SECONDS)
    thread.start()
    try:
        with cancel.waking(lambda: events.put(_cancelled())):
            return _wait(events, cancel, progress)
    except BaseException:  # cancelled, Ctrl-C, an error in the caller's own callback, or the work failed
        flag.set()
        _discard_result(events)
        raise


def _wait(events: SimpleQueue[Any], cancel: CancelFlag, progress: Progress | None) -> Loaded:
    while not cancel:
        try:
            event = events.get(timeout=POLL_SECONDS)
        except Empty:
            continue
        if isinstance(event, BaseException):
            raise event
        if isinstance(event, Loaded):
            return event
        if progress is not None:
            progress(*event)
    raise _cancelled()


def _cancelled() -> Cancelled:
    return Cancelled("loading was cancelled")


def _worker(
    work: Callable[[Progress], Loaded], flag: CancelFlag, cancel: CancelFlag, events: SimpleQueue[Any]
) -> None:
    def report(stage: str, done: int, total: int) -> None:
        if flag or cancel:
            raise _cancelled()
        events.put((stage, done, total))

    try:
        events.put(work(report))
    except BaseException as error:  # handed to the thread that waits
        events.put(error)
    if flag:
        _discard_result(events)
    atexit.unregister(threading.current_thread().join)


def _discard_result(events: SimpleQueue[Any]) -> None:
    """Close an executor that came too late. Both threads call this after the flag is set, so one of them finds it."""
    while True:
        try:
            event = events.get_nowait()
        except Empty:
            return
        if isinstance(event, Loaded):
            event.executor.close()


def _load(path_or_name: str | os.PathLike[str], options: LoadOptions, report: Progress, flag: CancelFlag) -> Loaded:
    """Find the file, validate it, build the graph and the tokenizer, choose and compile kernels."""
    path = hub.resolve(path_or_name, progress=report, cancel=flag)
    with _READING:
        report("reading", 0, 3)
        path, spec, tokenizer, context = _read(path, options, report)
    backend = choose_backend(spec.graph, options, context)
    n_pages = pool_pages(spec.graph.state, context, dtype=backend.kv_dtype, parallel=options.parallel)
    # More threads than processors would only wait for each other at every barrier.
    threads = min(options.threads or physical_cores(), usable_cpus())
    report("reading", 3, 3)
    max_tokens = STEP_TOKENS if spec.graph.is_causal else max(STEP_TOKENS, context)  # a whole text is one step
    executor = backend.compile(spec.graph, n_pages=n_pages, max_tokens=max_tokens, threads=threads, progress=report)
    return Loaded(_facts(path, spec, context, threads, backend.name), tokenizer, executor)


def _read(path: Path, options: LoadOptions, report: Progress) -> tuple[Path, ModelSpec, Tokenizer, int]:
    """First file, graph, tokenizer and context of a model. It is closed again: the weights keep it mapped."""
    with GGUFFile.open(path) as file:
        path = file.path  # any shard of a split model may have been given
        context = choose_context(file, options.context)
        spec = build_model(file, context=context)
        read = partial(report, "reading", 1, 3)
        read()
        tokenizer = tokenizer_from_metadata(file.metadata, check=read)
    report("reading", 2, 3)
    if tokenizer.vocab_size > spec.vocab_size:
        raise ModelFileError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model {spec.vocab_size}",
            path=path, field="tokenizer.ggml.tokens", hint="Download or convert the model again",
        )  # fmt: skip
    return path, spec, tokenizer, context


def _facts(path: Path, spec: ModelSpec, context: int, threads: int, backend: str) -> Facts:
    return Facts(
        path=path,
        name=spec.name,
        architecture=spec.architecture,
        context_length=spec.context_length,
        vocab_size=spec.vocab_size,
        n_layer=spec.n_layer,
        n_embd=spec.n_embd,
        n_params=spec.n_params,
        pooling=spec.pooling,
        context=context,
        threads=threads,
        backend=backend,
    )


def choose_context(file: GGUFFile, wanted: int | None) -> int:
    """The context wanted, or as much as the model was trained with, up to DEFAULT_CONTEXT.

    Longer contexts than the original one take longrope's long factors, for short texts too, where transformers looks
    at the text. So they are for those who ask for them.
    """
    if wanted is not None:
        return wanted
    keys = file.metadata.scope(file.metadata.require("general.architecture", str))
    most = keys.optional("context_length", int, DEFAULT_CONTEXT)
    # llama.cpp's converter does not write the type, only the factors.
    if keys.optional("rope.scaling.type", str, "") == "longrope" or "rope_factors_long.weight" in file.tensors:
        most = min(most, keys.optional("rope.scaling.original_context_length", int, most))
    return max(1, min(most, DEFAULT_CONTEXT))


def _cpu(**options: Any) -> Backend:
    from .backends.cpu import CPUBackend  # imports numba

    return CPUBackend(**options)


def _reference(**options: Any) -> Backend:
    from .backends.reference import ReferenceBackend

    return ReferenceBackend(**options)


BACKENDS: dict[str, Callable[..., Backend]] = {"cpu": _cpu, "reference": _reference}


def choose_backend(graph: Graph, options: LoadOptions, context: int) -> Backend:
    """What runs a graph as the options say, and keeps keys and values as they, or the model's weights, ask for."""
    if options.placement is not None:
        return offloading(options.placement, least_pages=-(-context // PAGE))
    make, kv_type = BACKENDS[options.backend], options.kv_type or exact_kv_type(graph)
    return make() if kv_type is None else make(kv_dtype=KV_TYPES[kv_type])
