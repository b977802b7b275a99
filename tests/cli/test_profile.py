"""`halfbyte bench --profile`: what it says adds up, and it is data with `--json`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ..switches import needs_kernels

OPTIONS = ("--profile", "--prompt-tokens", 50, "--gen-tokens", 5, "--repeat", 2, "--threads", 2)
PARTS = ("call_seconds", "wait_seconds", "start_seconds", "python_seconds")


@needs_kernels
def test_json(halfbyte: Any) -> None:
    done = halfbyte("bench", "stories260k", *OPTIONS, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["prompt_tps"] > 0 and len(result["decode_tps_runs"]) == 2
    profile = result["profile"]
    assert set(profile) == {"limits", "prompt", "decode"}
    assert all(limit > 0 for limit in profile["limits"].values())
    assert (profile["prompt"]["tokens"], profile["prompt"]["steps"]) == (50, 1)
    assert (profile["decode"]["tokens"], profile["decode"]["steps"]) == (5, 5)
    for phase in (profile["prompt"], profile["decode"]):
        assert phase["wall_seconds"] == pytest.approx(sum(phase[part] for part in PARTS))
        assert all(phase[part] >= 0 for part in PARTS)
        inside = phase["call_seconds"] + phase["wait_seconds"]
        for rows in ("ops", "tensors", "calls"):
            assert sum(row["seconds"] for row in phase[rows]) == pytest.approx(inside)
        assert {"ffn_down", "attn_q", "kv cache", "output (tied)"} <= {row["name"] for row in phase["tensors"]}
    # the run shown is one of those counted
    speeds = [50 / profile["prompt"]["wall_seconds"], 1 / profile["decode"]["wall_seconds"]]
    assert min(abs(speed / speeds[0] - 1) for speed in result["prompt_tps_runs"]) < 1e-6
    assert min(abs(speed / speeds[1] - 1) for speed in result["decode_tps_runs"]) < 1e-6


@needs_kernels
def test_text(halfbyte: Any) -> None:
    done = halfbyte("bench", "stories260k", *OPTIONS)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii(), "a pipe gets neither colours nor bars"
    for wanted in ("Prompt of 50 tokens", "Decode, mean of 5 tokens", "tokens/s", "Python around", "attn_q", "GMAC/s"):
        assert wanted in done.stdout, wanted
    assert done.stdout.count("wall time") == 2


def test_the_reference_backend_has_none(halfbyte: Any) -> None:
    done = halfbyte("bench", "stories260k", *OPTIONS, "--backend", "reference")
    assert done.returncode == 5
    assert "CPU backend" in done.stderr
    assert done.stdout == ""
