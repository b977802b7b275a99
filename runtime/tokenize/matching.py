"""Finding whole tokens in a text: leftmost first, then longest, as `tokenizers` does for added tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_WHITE = " \t\n\v\f\r"  # isspace() of the C locale: what lstrip and rstrip tokens swallow


class TokenMatcher:
    """Cuts a text into token ids and the text between them.

    Only positions whose character begins some token are looked at, and there only the lengths that such tokens have:
    vocabularies hold up to 6,000 of these tokens, too many for an alternation of Python's `re`.
    """

    def __init__(
        self,
        tokens: Mapping[str, int],
        strip_left: frozenset[int] = frozenset(),
        strip_right: frozenset[int] = frozenset(),
    ) -> None:
        self._tokens, self._strip_left, self._strip_right = dict(tokens), strip_left, strip_right
        lengths: dict[str, set[int]] = {}
        for token in self._tokens:
            lengths.setdefault(token[0], set()).add(len(token))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        self._starts = re.compile("[" + re.escape("".join(sorted(lengths))) + "]") if lengths else None

    def split(self, text: str) -> Iterator[int | str]:
        """Token ids and non-empty pieces of text, in order."""
        done = pos = 0  # text[done:pos] holds no token
        while match := self._starts.search(text, pos) if self._starts else None:
            start = match.start()
            found = self._longest_at(text, start)
            if found is None:
                pos = start + 1
                continue
            pos, token = found
            before = text[done:start]
            if token in self._strip_left:
                before = before.rstrip(_WHITE)
            if before:
                yield before
            yield token
            if token in self._strip_right:
                pos += len(text) - pos - len(text[pos:].lstrip(_WHITE))
            done = pos
        if done < len(text):
            yield text[done:]

    def _longest_at(self, text: str, start: int) -> tuple[int, int] | None:
        """(end, id) of the longest token at `start`."""
        for length in self._lengths[text[start]]:
            token = self._tokens.get(text[start : start + length])
            if token is not None:
                return start + length, token
        return None
