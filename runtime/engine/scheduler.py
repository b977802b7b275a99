"""Which tokens run in the next step. Policy only: no arrays, no threads.

A step holds either one token of every sequence that is generating, or pieces of prompts. The two take turns and never
mix, because a backend runs them with different kernels, whose roundings differ; only the state of given tokens is
shared, and one that starts over generates its tokens one by one again. So no text depends on who else was served.
Prompts divide the room of a step equally, and what a short one does not need goes to the longer ones, so that a short
question never waits for a long document. While others generate, a step of prompts is a quarter as long, so that text
keeps flowing.

Encoders want `whole_texts`: nothing is generated and no text is cut. A step takes texts as they came, and leaves out
those that do not fit into what is left of it.

Room in the cache: a sequence is admitted when there is room for all its tokens known so far. One that later finds no
room for its next token takes it from the youngest running sequence, which starts over later. The oldest one therefore
always gets on, and since a sequence that could not fit alone is refused by `check`, everything submitted is finished in
the end.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from ...formats.errors import ContextOverflow
from ..cache.protocol import SequenceCache
from ..step import PAGE
from .sequence import Chunk, Sequence

PROMPT_SHARE = 4  # a step of prompts is one part in so many of the full length while others generate


class Scheduler:
    """Forms steps of at most `max_tokens` tokens and `max_outputs` rows of logits, of `max_sequences` sequences."""

    def __init__(
        self,
        cache: SequenceCache[Any],
        *,
        max_tokens: int,
        max_sequences: int = 64,
        max_outputs: int = 128,
        whole_texts: bool = False,
    ) -> None:
        self.cache = cache
        self.max_tokens = max_tokens
        self.max_sequences = min(max_sequences, max_tokens, max_outputs)  # each may need one token and one row
        self.max_outputs = max_outputs
        self.whole_texts = whole_texts
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.num_preempted = 0
        self._arrivals = 0
        self._prompts_turn = False

    def check(self, n_tokens: int) -> None:
        """Refuse a sequence that could not finish even with the whole cache to itself."""
        if n_tokens > self.cache.capacity:
            raise ContextOverflow(n_tokens, self.cache.capacity)

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        self._arrivals += 1
        sequence.number = self._arrivals
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, finished or not. Harmless when repeated."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._free(sequence)

    @property
    def has_work(self) -> bool:
        """Whether `schedule` would return something."""
        return any(not s.owner.is_paused for s in self.running) or any(not s.owner.is_paused for s in self.waiting)

    def schedule(self) -> list[Chunk]:
        """The next step: one chunk per sequence, those that generate first. Empty when all wait for their readers."""
        self._admit()
        chunks = self._form()
        while not chunks and self._preempt_paused():
            self._admit()
            chunks = self._form()
        return chunks

    def commit(self, chunks: list[Chunk]) -> None:
        """The step was run."""
        for chunk in chunks:
            self.cache.commit(chunk.sequence.handle, chunk.sequence.tokens, chunk.stop)

    def roll_back(self, chunks: list[Chunk]) -> None:
        """The step was given up half way: its own tokens have no valid state."""
        for chunk in chunks:
            if chunk.sequence.handle is not None:
                self.cache.truncate(chunk.sequence.handle, chunk.start)

    def _admit(self) -> None:
        """Move waiting sequences in while there is room, in order; one that is not ready holds up nobody."""
        for sequence in [s for s in self.waiting if not s.owner.is_paused]:
            if len(self.running) >= self.max_sequences:
                return
            if self._is_worth_waiting(sequence):
                continue
            n_given, reuse = sequence.n_prompt, not sequence.every_row
            handle = self.cache.allocate(sequence.tokens, n_given=n_given, reuse=reuse)
            if handle is None:
                return
            sequence.handle = handle
            if sequence.n_shared is None:
                sequence.n_shared = handle.length
            self.waiting.remove(sequence)
            self.running.append(sequence)
            self.running.sort(key=lambda s: s.number)

    def _is_worth_waiting(self, sequence: Sequence) -> bool:
        """Whether a running sequence is about to compute a beginning that this one could share."""
        return not sequence.every_row and any(
            _shared_pages(sequence, other) * PAGE > other.n_done
            for other in self.running
            if not other.owner.is_paused
        )

    def _form(self) -> list[Chunk]:
        ready = [s for s in self.running if not s.owner.is_paused]
        if self.whole_texts:
            return self._form_whole(ready)
        decoding = [s for s in ready if s.is_decoding]
        prefilling = sorted((s for s in ready if not s.is_decoding), key=lambda s: s.n_left)
        self._prompts_turn = bool(prefilling) and not (decoding and self._prompts_turn)
        if not self._prompts_turn and (chunks := _with_room([self._chunk(s, 1) for s in decoding])):
            return chunks
        prefilling = [s for s in prefilling if s.handle is not None]
        tokens = max(self.max_tokens // PROMPT_SHARE, len(prefilling)) if decoding else self.max_tokens
        return self._form_prompts(prefilling, tokens) if prefilling else []

    def _form_whole(self, ready: list[Sequence]) -> list[Chunk]:
        """The oldest, which always fits, and all others for which there is room."""
        chunks, tokens = [], self.max_tokens
        for sequence in ready:
            if sequence.n_left <= tokens:
                chunks.append(self._chunk(sequence, sequence.n_left))
                tokens -= sequence.n_left
        return _with_room(chunks)

    def _form_prompts(self, prefilling: list[Sequence], tokens: int) -> list[Chunk]:
        # Steps that want all rows are kept apart for the same reason: logits of many rows come from another kernel.
        prefilling = [s for s in prefilling if s.every_row == prefilling[0].every_row]
        chunks: list[Chunk | None] = []
        outputs = self.max_outputs - len(prefilling)
        for i, sequence in enumerate(prefilling):
            share = min(sequence.n_left, tokens // (len(prefilling) - i))
            if sequence.every_row:
                share = min(share, outputs + 1)
                outputs -= share - 1
            if sequence.handle is not None and (chunk := self._chunk(sequence, share)) is not None:
                chunks.append(chunk)
                tokens -= share
        return _with_room(chunks)

    def _chunk(self, sequence: Sequence, count: int) -> Chunk | None:
        """The next `count` tokens, made room for; None when the sequence had to give up its room instead."""
        while sequence.handle is not None:
            start = sequence.n_done
            if self.cache.extend(sequence.handle, start + count):
                return Chunk(sequence, start, count)
            self._preempt(self.running[-1])
        return None

    def _preempt_paused(self) -> bool:
        """Take the room of one whose reader lags, if somebody waits for it."""
        if not any(not s.owner.is_paused for s in self.waiting):
            return False
        paused = [s for s in self.running if s.owner.is_paused]
        if paused:
            self._preempt(paused[-1])
        return bool(paused)

    def _preempt(self, victim: Sequence) -> None:
        """Back to the queue, in order of arrival; what was computed may still be in the cache when its turn comes."""
        self.num_preempted += 1
        self.running.remove(victim)
        self._free(victim)
        place = sum(s.number < victim.number for s in self.waiting)
        self.waiting.insert(place, victim)

    def _free(self, sequence: Sequence) -> None:
        if sequence.handle is not None:
            self.cache.free(sequence.handle)
            sequence.handle = None


def _with_room(chunks: list[Chunk | None]) -> list[Chunk]:
    """Those that kept their room: an older sequence may have taken it."""
    return [c for c in chunks if c is not None and c.sequence.handle is not None]


def _shared_pages(a: Sequence, b: Sequence) -> int:
    """Full pages of given tokens in which both agree, the last one of `a` not counted: it is computed in any case."""
    limit = min(a.n_prompt - 1, b.n_prompt) // PAGE
    pages = (slice(i * PAGE, (i + 1) * PAGE) for i in range(limit))
    return next((i for i, page in enumerate(pages) if a.tokens[page] != b.tokens[page]), limit)
