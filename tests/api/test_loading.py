"""Loading on a thread of its own: cancelling, progress on the caller's thread, refused options."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from halfbyte import CancelFlag, Cancelled, ContextOverflow, InvalidRequest, Model, load_tokenizer
from halfbyte.formats.gguf import GGUFFile
from halfbyte.runtime import loading
from halfbyte.runtime.backends.reference import ReferenceBackend, ReferenceExecutor
from halfbyte.runtime.hub import ASSETS

from tests.builders import CASES, split, write_gguf

STORIES = ASSETS / "stories260k.gguf"


@pytest.fixture
def slow_backend(monkeypatch):
    """A backend that compiles for a second without reporting anything, as a compiler may."""
    closed = threading.Event()

    class Slow(ReferenceBackend):
        def compile(self, graph, **options):
            time.sleep(1.0)
            return super().compile(graph, **options)

    close = ReferenceExecutor.close
    monkeypatch.setattr(ReferenceExecutor, "close", lambda self: (close(self), closed.set()))
    monkeypatch.setitem(loading.BACKENDS, "reference", Slow)
    return closed


def test_progress_is_reported_on_the_callers_thread():
    seen = []
    Model.load(
        "stories260k", backend="reference", progress=lambda *event: seen.append((threading.get_ident(), *event))
    ).close()
    assert {ident for ident, *_ in seen} == {threading.get_ident()}
    assert [event for _, *event in seen if event[0] == "reading"] == [["reading", i, 3] for i in range(4)]


def test_cancel_releases_the_caller_whatever_the_loader_does(slow_backend):
    flag, set_at = CancelFlag(), []
    threading.Timer(0.4, lambda: (set_at.append(time.perf_counter()), flag.set())).start()
    with pytest.raises(Cancelled):
        Model.load("stories260k", backend="reference", cancel=flag)
    assert time.perf_counter() - set_at[0] < 0.05
    assert slow_backend.wait(5), "the executor that came too late was not closed"


def test_an_error_in_the_callers_progress_stops_the_load(slow_backend):
    def progress(stage: str, done: int, total: int) -> None:
        raise ZeroDivisionError("in the callback")

    with pytest.raises(ZeroDivisionError):
        Model.load("stories260k", backend="reference", progress=progress)


def test_a_split_model_is_known_by_its_first_file(tmp_path):
    shards = split(STORIES, tmp_path / "m", 20)
    with Model.load(shards[1], backend="reference") as model:
        assert model.path == shards[0]
        assert model.tokenize("Once upon a time") == [1, 403, 407, 261, 378]
    assert load_tokenizer(shards[2]).encode("Once upon a time") == [1, 403, 407, 261, 378]


@pytest.mark.parametrize(
    ("backend", "kv_type", "dtype"),
    [
        *(("reference", None, np.float32), ("reference", "f16", np.float16)),
        *(("cpu", None, np.float32), ("cpu", "f16", np.float16)),  # its weights are float32
    ],
)
def test_memory_is_counted_in_the_type_the_backend_stores(backend, kv_type, dtype, monkeypatch):
    class Counted(Exception):
        pass

    def count(specs, context, *, dtype, parallel):
        raise Counted(np.dtype(dtype))

    monkeypatch.setattr(loading, "pool_pages", count)
    with pytest.raises(Counted) as caught:
        Model.load("stories260k", backend=backend, kv_type=kv_type)
    assert caught.value.args == (np.dtype(dtype),)


@pytest.mark.parametrize(("kv_type", "dtype"), [(None, np.float32), ("f16", np.float16), ("f32", np.float32)])
def test_the_reference_pool_has_the_type_that_was_counted(kv_type, dtype):
    with Model.load("stories260k", backend="reference", context=64, kv_type=kv_type) as model:
        assert model.executor.kv.dtype == dtype


def test_a_flag_that_is_already_set():
    flag = CancelFlag()
    flag.set()
    with pytest.raises(Cancelled):
        Model.load("stories260k", backend="reference", cancel=flag)


@pytest.mark.parametrize(
    "options",
    [
        *({"context": wrong} for wrong in (0, 1.5, True)),
        *({"threads": wrong} for wrong in (0, -1)),
        {"parallel": 0},
        {"backend": "gpu"},
        *({"kv_type": wrong} for wrong in ("F32", "q8_0", 32, [])),
    ],
)
def test_options_that_make_no_sense(options):
    with pytest.raises(InvalidRequest, match=next(iter(options))):
        Model.load("stories260k", **{"backend": "reference", **options})


def test_the_context_can_be_chosen():
    with Model.load("stories260k", backend="reference", context=100, parallel=1) as model:
        assert model.context == 100
        with pytest.raises(ContextOverflow, match=r"101 tokens .* 100"):
            model.generate([1] * 91, max_tokens=10)
        assert model.stats().pages_available == 4


@pytest.mark.parametrize("says_type", [True, False])
def test_longrope_has_its_original_context_unless_more_is_asked_for(says_type, tmp_path):
    """Files of llama.cpp's converter do not say the type, only the factors."""

    def change(metadata, tensors):
        metadata.pop("phi3.rope.scaling.type", None)
        if says_type:
            metadata["phi3.rope.scaling.type"] = "longrope"

    path = write_gguf(CASES["phi3_longrope_long"], tmp_path / "m.gguf", change=change)
    with GGUFFile.open(path, use_mmap=False) as file:
        assert loading.choose_context(file, None) == 28
        assert loading.choose_context(file, 100) == 100
    path = write_gguf(CASES["llama_yarn"], tmp_path / "yarn.gguf")
    with GGUFFile.open(path, use_mmap=False) as file:
        assert loading.choose_context(file, None) == 112


def test_the_end_of_the_process_waits_for_a_load_that_was_given_up() -> None:
    """Python ends daemon threads where they are, and inside a C++ library that ends the process with an abort."""
    code = """if True:
        import time
        from halfbyte import CancelFlag, Cancelled
        from halfbyte.runtime.loading import run_cancellable

        def work(report):
            time.sleep(0.5)
            print("stopped by itself", flush=True)

        cancel = CancelFlag()
        cancel.set()
        try:
            run_cancellable(work, CancelFlag(), progress=None, cancel=cancel)
        except Cancelled:
            print("cancelled", flush=True)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["cancelled", "stopped by itself"]


def test_the_loading_thread_sees_a_cancel_by_itself() -> None:
    """Right before work that holds Python's lock: the waiting thread could not run until it is over."""
    cancel, went_on = CancelFlag(), []

    def work(report):
        cancel.set()
        report("reading", 1, 3)
        went_on.append(True)

    with pytest.raises(Cancelled):
        loading.run_cancellable(work, CancelFlag(), progress=None, cancel=cancel)
    assert not went_on


def test_who_waits_hears_of_a_cancel_whoever_sees_it_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loading thread clears up what came too late, but only once nobody waits."""
    monkeypatch.setattr(loading, "POLL_SECONDS", 20.0)

    def work(report):
        while True:
            report("reading", 1, 3)

    begin = time.monotonic()
    for _ in range(30):
        cancel = CancelFlag()
        threading.Timer(0.005, cancel.set).start()
        with pytest.raises(Cancelled):
            loading.run_cancellable(work, CancelFlag(), progress=None, cancel=cancel)
    assert time.monotonic() - begin < 15
