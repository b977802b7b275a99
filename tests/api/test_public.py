"""The front door: what is exported, what importing costs, and that no keyword is ever swallowed."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import halfbyte
import pytest
from halfbyte.runtime.engine.sampling import SamplingParams

ROOT = Path(halfbyte.__file__).parent


def test_every_exported_name_exists():
    for name in halfbyte.__all__:
        assert getattr(halfbyte, name) is not None
    assert set(halfbyte.__all__) <= set(dir(halfbyte))
    assert halfbyte.__all__ == sorted(halfbyte.__all__)


def test_type_checkers_see_the_names_that_exist_at_run_time():
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    block, run_time = [n for n in tree.body if isinstance(n, ast.If)]
    assert ast.unparse(run_time) == "if not TYPE_CHECKING:\n    __getattr__ = _load"  # they would believe any name
    seen = {
        (n.module, alias.name) for n in block.body if isinstance(n, ast.ImportFrom) and n.level for alias in n.names
    }
    assert seen == {(module, name) for module, names in halfbyte._HOME.items() for name in names}
    assert {name for _, name in seen} | {"__version__"} == set(halfbyte.__all__)
    assert (ROOT / "py.typed").is_file()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Modle'"):
        halfbyte.Modle  # noqa: B018


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import halfbyte", ("numpy", "numba", "llvmlite", "jinja2", "halfbyte.runtime", "halfbyte.formats")),
        ("import halfbyte; halfbyte.HalfbyteError", ("numpy", "numba", "llvmlite")),
        ("import halfbyte; halfbyte.Model", ("numba", "llvmlite", "jinja2")),
        (
            "import halfbyte; halfbyte.Model.load('stories260k', backend='reference').close()",
            ("numba", "llvmlite", "jinja2"),
        ),
    ],
)
def test_importing_brings_nothing_heavy(statement: str, unwanted: tuple[str, ...]):
    program = f"{statement}\nimport sys\nprint(*(n for n in {unwanted!r} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_importing_brings_nothing_at_all():
    """So that the command is within its `try` before anything takes time."""
    program = "import sys\nbefore = set(sys.modules)\nimport halfbyte.__main__\nprint(*sorted({*sys.modules} - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["halfbyte", "halfbyte.__main__"]


METHODS = (halfbyte.Model.generate, halfbyte.Model.chat, halfbyte.Session.send)


@pytest.mark.parametrize("method", [*METHODS, halfbyte.Model.load, halfbyte.Model.logits, halfbyte.Model.session])
def test_signatures_are_explicit(method):
    kinds = {p.kind for p in inspect.signature(method).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds
    assert method.__doc__


@pytest.mark.parametrize("method", METHODS)
def test_sampling_keywords_are_those_of_sampling_params_with_the_same_defaults(method):
    defaults = {n: p.default for n, p in inspect.signature(SamplingParams).parameters.items()}
    mine = {n: p.default for n, p in inspect.signature(method).parameters.items() if n in defaults}
    assert mine == defaults


def test_unknown_keywords_are_type_errors(model):
    with pytest.raises(TypeError):
        halfbyte.Model.load("stories260k", n_ctx=512)
    for call in (model.generate, model.session().send):
        with pytest.raises(TypeError, match="temprature"):
            call("x", temprature=0.5)
    with pytest.raises(TypeError):
        model.chat([{"role": "user", "content": "x"}], temprature=0.5)
    with pytest.raises(TypeError):
        halfbyte.load_tokenizer(model.path, fast=True)


WRONG = {
    "temperature": {"temperature": -1},
    "a vocabulary": {"logit_bias": {10**6: 1.0}},
    "an empty stop string": {"stop": [""]},
    "no tokens": {"max_tokens": 0},
    "logprobs": {"logprobs": -1},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_one_kind_of_error(model, wrong):
    for call in (lambda: model.generate("x", **wrong), lambda: model.chat([{"role": "user", "content": "x"}], **wrong)):
        with pytest.raises(halfbyte.InvalidRequest):
            call()


@pytest.mark.parametrize("messages", [[], "x", [{"content": "x"}], [{"role": "user", "content": 3}]])
def test_wrong_messages_are_one_kind_of_error(model, messages):
    for call in (model.chat, model.chat_prompt):
        with pytest.raises(halfbyte.InvalidRequest):
            call(messages)


def test_a_processor_that_returns_nothing_is_an_execution_error(model):
    with pytest.raises(halfbyte.ExecutionError, match="did it forget its return statement"):
        model.generate("Once", max_tokens=2, processors=[lambda history, logits: None]).read()


def test_the_table_of_errors_is_what_is_exported():
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (\d+) \|", page, re.MULTILINE)
    told = {name: int(code) for names, code in rows for name in re.findall(r"\w+", names)}
    exported = {name: getattr(halfbyte, name) for name in halfbyte.__all__}
    errors = {n: e.exit_code for n, e in exported.items() if isinstance(e, type) and issubclass(e, Exception)}
    assert told | {"HalfbyteError": 2} == errors


def test_load_tokenizer(model):
    tokenizer = halfbyte.load_tokenizer(model.path)
    assert tokenizer.decode(tokenizer.encode("Once upon a time")) == "Once upon a time"
