"""Sampling and stop strings written for the reader: pure Python, everything sorted, nothing of the real ones used."""

from __future__ import annotations

import math
from collections.abc import Sequence


def softmax(logits: Sequence[float]) -> list[float]:
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    total = sum(weights)
    return [w / total for w in weights]


def penalized(logits, history, repeat=1.0, presence=0.0, frequency=0.0, last_n=64):
    """llama.cpp's penalties over the last `last_n` tokens (-1: all)."""
    recent = list(history) if last_n < 0 else list(history)[len(history) - min(last_n, len(history)) :]
    result = list(logits)
    for token in set(recent):
        x = result[token]
        x = x / repeat if x > 0 else x * repeat
        result[token] = x - recent.count(token) * frequency - presence
    return result


def distribution(logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0) -> dict[int, float]:
    """{token id: probability} after top-k, top-p, min-p and temperature, in this order."""
    pairs = sorted(((x, -i) for i, x in enumerate(logits)), reverse=True)
    if top_k:
        pairs = pairs[:top_k]
    if top_p < 1:
        kept, held = [], 0.0
        for pair, p in zip(pairs, softmax([x for x, _ in pairs]), strict=True):
            kept.append(pair)
            held += p
            if held >= top_p:
                break
        pairs = kept
    if min_p:
        pairs = [pair for pair in pairs if math.exp(pair[0] - pairs[0][0]) >= min_p]
    chances = softmax([(x - pairs[0][0]) / temperature for x, _ in pairs])
    return {-i: p for (_, i), p in zip(pairs, chances, strict=True)}


def stopped(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Text up to the stop string that ends first (of those that end together, the longest); whether there is one."""
    for end in range(len(text) + 1):
        ending = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(ending)], True
    return text, False
