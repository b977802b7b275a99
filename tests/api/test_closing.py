"""Closing a model, on purpose or not: nobody hangs, nothing stays open."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from halfbyte import Model, ModelClosed

STORY = "Once upon a time"


def test_closing_while_others_generate_gives_them_an_error():
    model = Model.load("stories260k", backend="reference")
    generation = model.generate(STORY)
    next(generation)
    caught: list[BaseException] = []

    def read() -> None:
        try:
            generation.read()
        except ModelClosed as error:
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    model.close()
    thread.join(5)
    assert caught and model.is_closed
    for call in (lambda: model.generate(STORY), lambda: model.logits([1]), model.session, model.__enter__):
        with pytest.raises(ModelClosed):
            call()
    model.close()


def test_a_model_nobody_holds_gives_back_its_thread():
    before = threading.active_count()
    model = Model.load("stories260k", backend="reference")
    model.generate(STORY, max_tokens=2).read()
    del model
    gc.collect()
    _wait_until(lambda: threading.active_count() == before)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files through /proc")
def test_closed_models_leave_nothing_open():
    def cycle() -> Model:
        with Model.load("stories260k", backend="reference") as model:
            model.generate(STORY, max_tokens=2).read()
        return model

    cycle()
    gc.collect()
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    models = [cycle() for _ in range(5)]
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == files and threading.active_count() == threads
    assert "stories260k.gguf" not in Path("/proc/self/maps").read_text()  # closed is enough, nobody need forget them
    assert all(model.is_closed for model in models)


def test_closing_at_exit_needs_no_help():
    program = (
        "import halfbyte\n"
        "m = halfbyte.Model.load('stories260k', backend='reference')\n"
        "g = m.generate('Once upon a time')\n"
        "print(len(next(g)) > 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "True", "")


def _wait_until(condition) -> None:
    end = time.perf_counter() + 5
    while not condition():
        assert time.perf_counter() < end, "it did not happen in time"
        time.sleep(0.005)
