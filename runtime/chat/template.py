"""ChatTemplate: a model's prompt format as a compiled, metered program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from ...formats.errors import TemplateError
from .limits import DEFAULT_LIMITS, Limits, Meter
from .messages import Copier, MessageError, check_dicts, check_messages

if TYPE_CHECKING:
    from jinja2 import Template

# What `render` sets itself, what the sandbox defines, what jinja2 gives a meaning to, and the arguments of
# Hugging Face's apply_chat_template: a request must not be able to replace the template (CVE-2025-62426).
# fmt: off
_RESERVED: Final = frozenset((
    "messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "now", "range", "dict",
    "namespace", "cycler", "joiner", "raise_exception", "strftime_now", "self", "loop", "caller", "varargs", "kwargs",
    "super", "tokenize", "chat_template", "conversation", "continue_final_message", "padding", "truncation",
    "max_length", "return_tensors", "return_dict",
))
# fmt: on


class ChatTemplate:
    """A chat template in the dialect of Hugging Face: jinja2 with `raise_exception`, `strftime_now`, plain `tojson`,
    `{% break %}`, `{% continue %}` and `{% generation %}`.

    Compiling raises TemplateError, with the line, for wrong or forbidden syntax. The object is immutable and many
    threads may use it at once. Templates are untrusted: limits.py says what bounds them, methods.py what they reach.
    """

    def __init__(
        self, source: str, *, bos_token: str = "", eos_token: str = "", limits: Limits = DEFAULT_LIMITS
    ) -> None:
        from .sandbox import compile_template  # jinja2 takes 40 ms to import

        self.source: Final = source
        self.bos_token: Final = bos_token
        self.eos_token: Final = eos_token
        self.limits: Final = limits
        self._template: Template = compile_template(source, limits)

    def render(
        self,
        /,  # so that an extra variable named self is refused below, not by Python
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        documents: Sequence[Mapping[str, Any]] | None = None,
        now: datetime | None = None,
        **extra: Any,
    ) -> str:
        """The prompt for `messages`.

        `tools` are JSON schemas of functions, `documents` are for retrieval templates, `now` replaces the clock that
        strftime_now reads, and `extra` are the template's own switches (enable_thinking=False, ...).

        Raises MessageError for input of the wrong form and TemplateError when the template fails, refuses the
        conversation (`raise_exception`) or exceeds its limits.
        """
        variables, meter = self._prepare(messages, tools, add_generation_prompt, documents, extra)
        from .formatting import printable
        from .sandbox import line_of, run

        try:
            return "".join(run(self._template, variables, meter, now))
        except TemplateError as error:
            line = line_of(self._template, error)
            raise TemplateError(f"{error} (template line {line})" if line else str(error)) from None
        except RecursionError:
            raise TemplateError("the chat template nests values or calls too deeply; it was stopped") from None
        except MemoryError:
            raise TemplateError("there is not enough memory to render the chat template") from None
        except Exception as error:  # the template is a program: it can raise anything that Python operators raise
            line = line_of(self._template, error)
            reason = printable(str(error) or type(error).__name__)
            raise TemplateError(f"chat template line {line or '?'}: {reason}") from error

    def _prepare(
        self, messages: object, tools: object, add_generation_prompt: bool, documents: object, extra: dict[str, Any]
    ) -> tuple[dict[str, Any], Meter]:
        check_messages(messages)
        check_dicts(tools, "tools")
        check_dicts(documents, "documents")
        copier = Copier()
        variables: dict[str, Any] = {}
        for name, value in extra.items():
            if name in _RESERVED or name.startswith("_"):
                raise MessageError(f"{name!r} cannot be set as a template variable: the name is reserved")
            variables[name] = copier.copy(value, name)
        variables.update(
            messages=copier.copy(messages, "messages"),
            tools=copier.copy(tools, "tools"),
            documents=copier.copy(documents, "documents"),
            add_generation_prompt=bool(add_generation_prompt),
            bos_token=self.bos_token,
            eos_token=self.eos_token,
        )
        return variables, Meter(self.limits.for_input(copier.nodes, copier.chars))
