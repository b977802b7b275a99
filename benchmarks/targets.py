"""What is to be reached: the numbers that the benchmarks hold their results against."""

from __future__ import annotations

from typing import NamedTuple


class Target(NamedTuple):
    """Multiples of llama.cpp's speed in the same run."""

    prompt: float
    decode: float


SPEED = {
    "synthetic:Q4_0": Target(2.0, 1.35),
    "synthetic:Q4_1": Target(9.0, 2.0),
    "synthetic:Q5_0": Target(5.0, 2.1),
    "synthetic:Q8_0": Target(3.9, 1.4),
    "synthetic:Q4_K_M": Target(2.4, 1.35),
    "synthetic:Q6_K": Target(1.6, 1.5),
    "synthetic:IQ4_NL": Target(2.2, 1.35),
    "synthetic:F16": Target(2.0, 1.1),
    "smollm2": Target(6.0, 1.7),  # SmolLM2-135M in Q4_1
    "gemma3-270m": Target(2.8, 1.6),  # in Q4_K_M
}
OTHERWISE = Target(1.0, 1.0)

DECODE_SHARE = 0.9  # of the read bandwidth: synthetic models of 1.1 B, types of 4 bits and more
PROMPT_SHARE = 0.8  # of the microkernel's peak: the same models

DEPTH = Target(1.8, 1.2)  # a prompt of 4,096 tokens, and decode behind it, beside llama.cpp with flash attention
BATCH = (8, 3.0)  # so many sequences together give so many times the tokens per second of one

QUANTIZE = dict.fromkeys(("Q8_0", "Q4_0", "Q6_K", "Q4_K_M", "IQ4_NL"), 1.5)  # times llama.cpp's speed
QUANTIZE_MEMORY = 400e6  # bytes at most, whatever the size of the model

LOAD_SECONDS = 0.2  # a file of 0.6 GB in the page cache
OWN_MEMORY = 100e6  # bytes of a second process, beside the mapped file
GROWTH = 5e6  # bytes of memory over GROWTH_TOKENS generated tokens
GROWTH_TOKENS = 10_000

START_SECONDS = {"smollm2": (20.0, 1.5)}  # to the first token, with an empty kernel cache and with a full one
START_OTHERWISE = (10.0, 0.8)  # of a Q4_K_M model
