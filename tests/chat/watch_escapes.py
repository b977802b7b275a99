"""Run by test_attacks.py in a process of its own: renders every escape under an audit hook and prints what happened.

An audit hook cannot be removed, and pytest itself opens files all the time, so this does not run inside pytest.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from halfbyte.formats.errors import TemplateError
from halfbyte.runtime.chat import ChatTemplate
from halfbyte.runtime.chat.sandbox import FILE_NAME

from .attacks import ESCAPES

HARMLESS = {"object.__getattr__", "sys._getframe", "builtins.id", "code.__new__"}
MESSAGES = [{"role": "user", "content": "hi"}]
events: list[str] = []
watching = False


def hook(event: str, args: tuple[Any, ...]) -> None:
    if not watching or event in HARMLESS:
        return
    if event == "compile" and args[1] == FILE_NAME:
        return  # jinja2 compiling the template
    if event == "compile" and args[1] == "<unknown>" and args[0].replace(b".", b"").isdigit():
        return  # jinja2 reading the number 1.5
    if event == "exec" and args[0].co_filename == FILE_NAME:
        return
    events.append(f"{event} {args!r:.200}")


def outcome(source: str) -> str:
    try:
        return "rendered " + ChatTemplate(source).render(MESSAGES)
    except TemplateError:
        return "TemplateError"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def main() -> None:
    global watching
    outcome("{{ 1 }}")
    outcome("{{ '%d' % 1 }}{{ missing.x }}")
    sys.addaudithook(hook)
    watching = True
    open(__file__).close()  # the hook must be able to see something
    seen_by_hook = len(events)
    events.clear()
    results = {name: outcome(source) for name, source in ESCAPES.items()}
    watching = False
    print(json.dumps({"results": results, "events": events, "control": seen_by_hook}))


main()
