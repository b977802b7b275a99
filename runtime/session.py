"""A conversation that remembers."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..formats.errors import InvalidRequest
from .engine.generation import Generation

if TYPE_CHECKING:
    from .backends.base import CancelFlag
    from .engine.sampling import LogitsProcessor
    from .model import Model

Message = dict[str, Any]


class Session:
    """A chat with a model: `send` adds to `messages` and generates the answer.

    What the model computed for earlier turns stays in the model's cache as long as there is room, and is found again by
    the text it belongs to, so that a turn costs only its own tokens. An answer is read in the background as soon as it
    has ended: an answer to it is the one that `Model.chat` gives to the same messages. Forks share all that, and a
    session holds no memory of its own. One session is used by one thread at a time; different sessions of a model run
    side by side.
    """

    def __init__(
        self, model: Model, messages: Sequence[Mapping[str, Any]] = (), tools: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        self._model = model
        self._tools = copy.deepcopy(tools)
        for message in messages:
            if not isinstance(message, Mapping):
                raise TypeError(f"a message is a mapping, not {type(message).__name__}: {message!r:.40}")
        self._first = [dict(m) for m in copy.deepcopy(list(messages))]
        self._messages: list[Message] = copy.deepcopy(self._first)
        self._running: weakref.ref[Generation] | None = None  # weak, so that an answer nobody holds cancels itself

    @property
    def messages(self) -> list[Message]:
        """The conversation so far, as a copy: changing it does not change the session."""
        return copy.deepcopy(self._messages)

    def send(
        self,
        text: str,
        *,
        role: str = "user",
        max_tokens: int | None = None,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        repeat_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        penalty_last_n: int = 64,
        seed: int | None = None,
        logit_bias: Mapping[int, float] | None = None,
        logprobs: int | None = None,
        processors: Sequence[LogitsProcessor] = (),
        stop: str | Sequence[str] = (),
        cancel: CancelFlag | None = None,
    ) -> Generation:
        """Say something; the answer is generated in the background and joins `messages` when it has been read to its
        end.

        An answer that was cancelled joins as far as it was read; one that failed or was cancelled before its first word
        leaves the conversation as it was, without the message that asked for it.
        """
        self._check_idle()
        question: Message = {"role": role, "content": text}
        generation = self._model.chat(
            [*self._messages, question],
            tools=self._tools,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repeat_penalty=repeat_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            penalty_last_n=penalty_last_n,
            seed=seed,
            logit_bias=logit_bias,
            logprobs=logprobs,
            processors=processors,
            stop=stop,
            cancel=cancel,
        )
        self._messages.append(question)
        self._running = weakref.ref(generation)
        generation.on_end(self._note_answer)
        return generation

    def reset(self) -> None:
        """Go back to the messages the session began with; an answer in progress is cancelled."""
        self._stop()
        self._messages = copy.deepcopy(self._first)

    def fork(self) -> Session:
        """A second session with the same history; from here on they are independent."""
        self._check_idle()
        twin = Session(self._model, self._first, self._tools)
        twin._messages = self.messages
        return twin

    def _check_idle(self) -> None:
        if self._running is not None:
            raise InvalidRequest("an answer is still being generated; read it to its end, or cancel it with close()")

    def _stop(self) -> None:
        if self._running is not None and (generation := self._running()) is not None:
            generation.close()

    def _note_answer(self, generation: Generation) -> None:
        self._running = None
        if generation.finish_reason is None or (generation.finish_reason == "cancelled" and not generation.text):
            self._messages.pop()
        else:
            self._messages.append({"role": "assistant", "content": generation.text})
            if generation.finish_reason != "cancelled":  # then this may be the collector's thread
                self._model.read_ahead(self._messages, tools=self._tools)
