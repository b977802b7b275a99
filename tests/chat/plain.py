"""The oracle: chat templates in plain, unlimited jinja2, set up as Hugging Face's apply_chat_template does."""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols


class Generation(Extension):
    """`{% generation %}` as a call block, the way Hugging Face's own extension is built."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Any) -> str:
        return caller()


class Refused(Exception):
    """The template called raise_exception."""


def _raise(message: object = "") -> None:
    raise Refused(message)


def _tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=4)
def _compile(source: str) -> jinja2.Template:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.filters["from_json"] = json.loads  # llama.cpp's filter, used by three DeepSeek templates
    environment.globals["raise_exception"] = _raise
    return environment.from_string(source)


def render(source: str, variables: dict[str, Any], now: datetime) -> str:
    return _compile(source).render(strftime_now=now.strftime, **variables)
