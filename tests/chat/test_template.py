"""ChatTemplate and template_for: input checks, reserved names, the default."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from halfbyte.formats.errors import HalfbyteError, TemplateError
from halfbyte.runtime.chat import DEFAULT_TEMPLATE, ChatTemplate, MessageError, template_for

USER = {"role": "user", "content": "Hello"}
ECHO = ChatTemplate("{{ messages|tojson }}")


class Tokenizer:
    """The part of a tokenizer that template_for asks for."""

    def __init__(self, templates: Mapping[str | None, str], bos_id: int | None = 1, eos_id: int | None = 2) -> None:
        self.templates, self.bos_id, self.eos_id = templates, bos_id, eos_id

    def chat_template(self, name: str | None = None) -> str | None:
        return self.templates.get(name)

    def token_text(self, id: int) -> str:
        return {1: "<s>", 2: "</s>"}[id]


def test_default_template_is_chatml() -> None:
    template = ChatTemplate(DEFAULT_TEMPLATE)
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None},
    ]
    assert template.render(messages, add_generation_prompt=False) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
    )
    assert template.render([USER]).endswith("<|im_start|>assistant\n")


def test_the_models_template_gets_its_tokens() -> None:
    template = template_for(Tokenizer({None: "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"}))
    assert template.render([USER]) == "<s>Hello</s>"
    without = template_for(Tokenizer({None: "[{{ bos_token }}]"}, bos_id=None, eos_id=None))
    assert without.render([USER]) == "[]"


def test_named_templates() -> None:
    tokenizer = Tokenizer({None: "a", "tool_use": "b"})
    assert template_for(tokenizer, "tool_use").render([USER]) == "b"
    with pytest.raises(TemplateError, match="no chat template named 'rag'"):
        template_for(tokenizer, "rag")


def test_a_model_without_a_template(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert template_for(Tokenizer({})).source == DEFAULT_TEMPLATE
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "no chat template" in caplog.text and "ChatML" in caplog.text


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ("hi", "list of dicts"),
        (None, "list of dicts"),
        ([], "empty"),
        (["hi"], r"messages\[0\] must be a dict"),
        ([{}], r"messages\[0\]\.role"),
        ([{"role": 1, "content": "x"}], r"messages\[0\]\.role"),
        ([USER, {"role": "", "content": "x"}], r"messages\[1\]\.role"),
        ([{"role": "user", "content": 5}], r"\.content must be"),
        ([{"role": "user", "content": b"x"}], r"\.content must be"),
        ([{"role": "user", "content": ["x"]}], r"\.content\[0\]"),
        ([{"role": "user", "content": [{"text": "x"}]}], r"\.content\[0\]"),
        ([{"role": "assistant", "tool_calls": "x"}], "tool_calls must be"),
        ([{"role": "assistant", "tool_calls": [{"function": {}}]}], r"tool_calls\[0\]\.function"),
        ([{"role": "user", "content": "x", "extra": object()}], r"messages\[0\]\.extra is a object"),
        ([{"role": "user", "content": "x", "n": {1: 2}}], "keys must be strings"),
        ([{"role": "user", "content": "x", "n": 1 << 5000}], "5001 bits"),
    ],
)
def test_wrong_messages(messages: Any, reason: str) -> None:
    with pytest.raises(MessageError, match=reason) as caught:
        ECHO.render(messages)
    assert isinstance(caught.value, HalfbyteError) and isinstance(caught.value, ValueError)


def test_nesting_is_bounded() -> None:
    value: Any = "x"
    for _ in range(10_000):
        value = [value]
    with pytest.raises(MessageError, match="nested"):
        ECHO.render([{"role": "user", "content": "x", "deep": value}])


def test_wrong_tools_and_documents() -> None:
    for bad in ("x", ["x"], {"a": 1}):
        with pytest.raises(MessageError, match="tools"):
            ECHO.render([USER], tools=bad)  # type: ignore[arg-type]
        with pytest.raises(MessageError, match="documents"):
            ECHO.render([USER], documents=bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["bos_token", "eos_token", "raise_exception", "self", "tokenize", "chat_template", "_x"]
)
def test_reserved_names(name: str) -> None:
    with pytest.raises(MessageError, match="reserved"):
        ECHO.render([USER], **{name: "x"})


def test_extra_variables_and_their_types() -> None:
    template = ChatTemplate("{{ enable_thinking }}{{ d.a }}")
    assert template.render([USER], enable_thinking=False, d={"a": 1}) == "False1"
    with pytest.raises(MessageError, match="function"):
        template.render([USER], d=print)


def test_the_caller_keeps_its_objects() -> None:
    message = {"role": "user", "content": "x", "l": [1]}
    ChatTemplate("{% set _ = messages[0].l.append(2) %}{% set _ = messages.pop() %}").render([message])
    assert message == {"role": "user", "content": "x", "l": [1]}


def test_string_subclasses_lose_their_methods() -> None:
    class Loud(str):
        __slots__ = ()

        def __str__(self) -> str:
            raise AssertionError("the template reached an object of the caller")

        upper = lower = __str__  # type: ignore[assignment]

    assert ChatTemplate("{{ messages[0].content|upper }}").render([{"role": "user", "content": Loud("x")}]) == "X"


def test_now_is_replaceable() -> None:
    template = ChatTemplate("{{ strftime_now('%Y') }}")
    assert template.render([USER], now=datetime(1999, 1, 1)) == "1999"
    assert template.render([USER]) >= "2025"


def test_raise_exception() -> None:
    with pytest.raises(TemplateError, match="only user"):
        ChatTemplate("{{ raise_exception('only user') }}").render([USER])


@pytest.mark.parametrize("source", ["{% if %}", "{{", "{% for %}{% endfor %}", "{{ f(a=1, a=2) }}", "{% endif %}"])
def test_syntax_errors(source: str) -> None:
    with pytest.raises(TemplateError, match=r"line 1|cannot be compiled"):
        ChatTemplate(source)


def test_many_threads_share_a_template() -> None:
    template = ChatTemplate(
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"
    )
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda n: template.render([USER] * n), range(1, 60)))
    assert counts == [str(n) for n in range(1, 60)]


def test_importing_does_not_import_jinja2() -> None:
    code = "import sys, halfbyte.runtime.chat; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
