"""Chat templates: from a list of messages to the text of a prompt.

template.py    ChatTemplate: compile, render
choose.py      template_for(tokenizer), and the default for models without a template
messages.py    checks conversations, copies them into plain data
limits.py      what a render may cost; the meter
sandbox.py     the closed jinja2 environment; the only files that import jinja2 are this one and those below
codegen.py     jinja2's compiler with the meter in its output
values.py      operators; methods.py  attributes; formatting.py  format widths, dates
filters.py     the register of filters and tests; text_filters.py, list_filters.py, predicates.py fill it
"""

from __future__ import annotations

from .choose import DEFAULT_TEMPLATE, template_for
from .limits import DEFAULT_LIMITS, Limits
from .messages import MessageError
from .template import ChatTemplate

__all__ = ["DEFAULT_LIMITS", "DEFAULT_TEMPLATE", "ChatTemplate", "Limits", "MessageError", "template_for"]
