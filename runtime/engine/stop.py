"""Stop strings in text that arrives in pieces.

A stop string may lie across pieces, so text that could be the start of one is held back until it is certain. One
automaton (Aho-Corasick) finds all stop strings at once, in time linear in the text however it is cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from .sampling_errors import SamplingError

_MAX_CHARS = 16_384  # of all stop strings together; the automaton takes about 300 bytes a character


class StopStrings:
    """Finds the first of several strings in a stream of text.

        stops = StopStrings(["</s>", "\\n\\n"])
        emit, stopped = stops.feed(piece)      # emit: text that is certain; stopped: a stop string was found
        rest = stops.flush()                   # at the end of the stream

    The text before the stop string is emitted, the stop string and what follows are not. The stop that ends first wins;
    of those that end together, the longest.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        """Raises SamplingError for an empty stop string, or for more than 16,384 characters of them."""
        if isinstance(stops, str):
            raise SamplingError("stop strings must come in a list, not as one string")
        for stop in stops:
            if not isinstance(stop, str) or not stop:
                raise SamplingError(f"stop string {stop!r:.60}: a text of at least one character is needed")
        if sum(map(len, stops)) > _MAX_CHARS:
            raise SamplingError(f"the stop strings have more than {_MAX_CHARS:,} characters in all")
        self._build(stops)
        self.reset()

    def reset(self) -> None:
        """Forget all text."""
        self._state = 0
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> tuple[str, bool]:
        """Add `text`; returns the text that became certain, and whether a stop string is complete.

        After a stop everything is dropped: feed returns ("", True) until `reset`.
        """
        if self.stopped:
            return "", True
        if not self._match:
            return text, False
        state = self._state
        for position, char in enumerate(text):
            state = self._step(state, char)
            length = self._match[state]
            if length:
                self.stopped = True
                before = len(self._held) + position + 1 - length
                emitted, self._held = (self._held + text)[:before], ""
                return emitted, True
        self._state = state
        seen = self._held + text
        certain = len(seen) - self._depth[state]
        self._held = seen[certain:]
        return seen[:certain], False

    def flush(self) -> str:
        """The text held back, at the end of the stream; empty after a stop."""
        held, self._held, self._state = self._held, "", 0
        return held

    def _step(self, state: int, char: str) -> int:
        """The state after `char`: the longest start of a stop string that the text now ends with."""
        while True:
            following = self._next[state].get(char)
            if following is not None:
                return following
            if state == 0:
                return 0
            state = self._fallback[state]

    def _build(self, stops: Sequence[str]) -> None:
        """States are starts of stop strings; 0 is the empty one. _match: length of the longest stop ending there."""
        self._next: list[dict[str, int]] = [{}]
        self._depth, self._match, self._fallback = [0], [0], [0]
        for stop in stops:
            self._insert(stop)
        waiting = deque(self._next[0].values())
        while waiting:  # breadth first: the fallback of a state is less deep, so it is complete
            state = waiting.popleft()
            for char, following in self._next[state].items():
                self._fallback[following] = self._step(self._fallback[state], char)
                self._match[following] = self._match[following] or self._match[self._fallback[following]]
                waiting.append(following)
        if not stops:
            self._match = []  # feed then passes text through untouched

    def _insert(self, stop: str) -> None:
        state = 0
        for char in stop:
            following = self._next[state].get(char)
            if following is None:
                following = len(self._next)
                self._next[state][char] = following
                self._next.append({})
                self._depth.append(self._depth[state] + 1)
                self._match.append(0)
                self._fallback.append(0)
            state = following
        self._match[state] = len(stop)
