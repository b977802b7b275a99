"""Which template a model gets."""

from __future__ import annotations

import logging
from typing import Final, Protocol

from ...formats.errors import TemplateError
from .limits import DEFAULT_LIMITS, Limits
from .template import ChatTemplate

_log = logging.getLogger(__name__)

DEFAULT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' }}"
    "{% if message.content is string %}{{ message.content }}"
    "{% elif message.content %}{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
    "{% endif %}"
    "{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML, the format that most models without a template of their own were trained on or cope with.

    <|im_start|>user
    Hello<|im_end|>
    <|im_start|>assistant

Text parts of a message are joined; images, tools and tool calls are left out, because ChatML has no form for them.
"""


class TemplateSource(Protocol):
    """The part of a tokenizer that knows about templates."""

    @property
    def bos_id(self) -> int | None: ...
    @property
    def eos_id(self) -> int | None: ...
    def chat_template(self, name: str | None = None) -> str | None: ...
    def token_text(self, id: int) -> str: ...


def template_for(
    tokenizer: TemplateSource, name: str | None = None, *, limits: Limits = DEFAULT_LIMITS
) -> ChatTemplate:
    """The model's template, compiled with the text of its BOS and EOS tokens.

    `name` chooses one of several ('tool_use', 'rag'); a name that the model lacks is an error. A model without any
    template gets DEFAULT_TEMPLATE and one warning in the log.
    """
    source = tokenizer.chat_template(name)
    if source is None and name is not None:
        raise TemplateError(
            f"the model has no chat template named {name!r}; leave the name out to use its default template"
        )
    if source is None:
        _log.warning(
            "the model has no chat template: using ChatML. If it was trained with another format its answers will be "
            "poor; give the right template, or use plain completion"
        )
        source = DEFAULT_TEMPLATE
    bos, eos = (tokenizer.token_text(id) if id is not None else "" for id in (tokenizer.bos_id, tokenizer.eos_id))
    return ChatTemplate(source, bos_token=bos, eos_token=eos, limits=limits)
