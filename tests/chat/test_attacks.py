"""No template gets out (AT-08), and none takes more than 250 ms of CPU or 64 MB (AT-09)."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from halfbyte.formats.errors import TemplateError
from halfbyte.runtime.chat import ChatTemplate, Limits, sandbox
from halfbyte.runtime.chat.codegen import MeteringCodeGenerator
from jinja2.compiler import CodeGenerator

from .attacks import BOMBS, ESCAPES

ROOT = Path(__file__).parents[2]
MESSAGES = [{"role": "user", "content": "hi"}]


def _render(source: str) -> str:
    return ChatTemplate(source).render(MESSAGES)


def test_no_escape_executes_anything() -> None:
    command = [sys.executable, "-m", "tests.chat.watch_escapes"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    report = json.loads(done.stdout)
    assert report["control"] >= 1, "the audit hook saw nothing at all"
    assert report["events"] == []
    assert len(report["results"]) == len(ESCAPES) >= 33
    assert {name: result for name, result in report["results"].items() if result != "TemplateError"} == {}


def _cpu_seconds(bomb: str) -> float:
    start = time.thread_time()
    with pytest.raises(TemplateError):
        _render(bomb)
    return time.thread_time() - start


@pytest.fixture
def young_heap() -> Iterator[None]:
    """The garbage collector leaves alone what a thousand other tests and their libraries have made."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("young_heap")
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_stop_in_time(name: str) -> None:
    """One of a few tries: a thread that shares its core with a busy one gets more CPU time for the same work."""
    assert any(_cpu_seconds(BOMBS[name]) <= 0.25 for _ in range(5))


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_stay_small(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TemplateError):
            _render(BOMBS[name])
        assert tracemalloc.get_traced_memory()[1] <= 64 << 20
    finally:
        tracemalloc.stop()


def test_bombs_stop_on_any_thread() -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            _render(BOMBS["loops"])
        except TemplateError as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(errors) == 4


def test_the_clock_stops_what_fuel_does_not() -> None:
    template = ChatTemplate(BOMBS["loops"], limits=Limits(fuel=10**12, cpu_seconds=0.05))
    start = time.thread_time()
    with pytest.raises(TemplateError, match="50 ms"):
        template.render(MESSAGES)
    assert 0.04 < time.thread_time() - start < 0.2


def test_output_limit_is_exact() -> None:
    template = ChatTemplate("{% for i in range(n) %}x{% endfor %}", limits=Limits(output_chars=100))
    room = 100 + 4 * len("userhirolecontent")  # for_input: four times the input's characters, keys included
    assert template.render(MESSAGES, n=room) == "x" * room
    with pytest.raises(TemplateError, match="characters; it was stopped"):
        template.render(MESSAGES, n=room + 1)


def test_the_same_render_costs_the_same() -> None:
    """Fuel depends on the template and the input only: a template at the edge of its fuel passes always or never."""
    source = "{% for i in range(n) %}{{ i }}{% endfor %}"
    template = ChatTemplate(source, limits=Limits(fuel=5_000, cpu_seconds=1e9))

    def passes(n: int) -> bool:
        try:
            template.render(MESSAGES, n=n)
        except TemplateError:
            return False
        return True

    edge = next(n for n in range(1, 20_000, 7) if not passes(n))
    assert all(passes(edge - 7) and not passes(edge) for _ in range(5))


_KINDS = ("Assign", "Compare", "Concat", "Dict", "For", "Getitem", "Operand")
METERED = ["blockvisit", "write_commons", *(f"visit_{kind}" for kind in _KINDS)]


@pytest.mark.parametrize("method", METERED)
def test_a_jinja2_that_drops_the_meter_is_refused(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MeteringCodeGenerator, method, getattr(CodeGenerator, method))
    sandbox.check_metering.cache_clear()
    try:
        with pytest.raises(TemplateError, match="cannot limit"):
            ChatTemplate("{{ 1 }}")
    finally:
        monkeypatch.undo()
        sandbox.check_metering.cache_clear()
    assert _render("{{ 1 }}") == "1"


def _message(source: str) -> str:
    with pytest.raises(TemplateError) as caught:
        _render(source)
    return str(caught.value)


def test_messages_hold_no_control_characters() -> None:
    for source in (
        "{{ raise_exception('a\\x1b]0;title\\x07b\\u202e') }}",
        "{{ messages['\\x1b[31m'] + 1 }}",
        "{{ '\x1b' ",
    ):
        assert _message(source).isprintable()


def test_errors_name_the_line() -> None:
    assert "line 3" in _message("a\nb\n{{ missing.x }}")
    assert "line 2" in _message("a\n{% if %}")
    assert "line 2" in _message("a\n{{ raise_exception('no') }}")


LEGAL: dict[str, Callable[[], str]] = {
    "a large text": lambda: _render("{{ ('x' * 500000)|length }}"),
    "a large range": lambda: _render("{{ range(100000)|length }}"),
    "many items": lambda: _render("{% for i in range(20000) %}{% endfor %}ok"),
    "deep calls": lambda: _render("{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}ok"),
}


def test_public_templates_are_far_below_the_limits() -> None:
    templates = [path.read_text(encoding="utf-8") for path in (ROOT / "tests/fixtures/templates").glob("*.jinja")]
    environment = sandbox._environment()
    assert len(templates) > 40
    assert max(sum(1 for _ in environment._tokenize(text, None)) for text in templates) < sandbox._MAX_TOKENS / 3


@pytest.mark.parametrize("name", LEGAL)
def test_limits_leave_room(name: str) -> None:
    assert LEGAL[name]()
