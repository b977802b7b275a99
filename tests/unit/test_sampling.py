"""Sampling against a naive twin: the same candidates, the same distribution, and the edges."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.errors import InvalidRequest
from halfbyte.runtime.engine.errors import LogitsError
from halfbyte.runtime.engine.samplers import Candidates, largest, narrowing_for
from halfbyte.runtime.engine.sampling import SampledToken, Sampler, SamplingError, SamplingParams
from hypothesis import given, settings
from hypothesis import strategies as st

from .. import naive_sampling as naive

VOCAB = 151_936  # Qwen's


def _logits(size: int, seed: int = 0, scale: float = 3.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, size).astype(np.float32)


def _off(**changes: Any) -> SamplingParams:
    """Parameters with everything off but what is named."""
    return SamplingParams(**{"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 7, **changes})


def _kept(logits: np.ndarray, **settings: Any) -> set[int]:
    """The ids that the narrowing steps leave."""
    candidates = Candidates(logits, np.empty((2, logits.size), np.float32))
    for step in narrowing_for(_off(**settings)):
        step.apply(candidates, [])
    ids = np.arange(logits.size) if candidates.ids is None else candidates.ids
    assert np.array_equal(candidates.logits, logits[ids])
    if candidates.kept is not None:  # most of a whole vocabulary is left in place
        ids = ids[candidates.kept]
    if candidates.is_sorted:
        assert np.all(np.diff(candidates.logits) <= 0)
    return set(ids.tolist())


NARROWINGS = [
    {"top_k": 1},
    {"top_k": 40},
    {"top_k": 3000},
    {"top_k": 10**9},
    {"top_p": 0.0},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"top_p": 0.9999},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"min_p": 1e-9},
    {"top_p": 0.9, "min_p": 0.1},
    {"top_k": 40, "top_p": 0.95, "min_p": 0.05},
    {"top_k": 7, "top_p": 0.6},
]


@pytest.mark.parametrize("setting", NARROWINGS, ids=str)
@pytest.mark.parametrize(("size", "scale"), [(11, 2.0), (1000, 3.0), (20_011, 3.0), (20_011, 0.1), (20_011, 9.0)])
def test_the_same_candidates_as_the_twin(setting: dict[str, Any], size: int, scale: float) -> None:
    logits = _logits(size, seed=size, scale=scale)
    expected = set(naive.distribution(logits.tolist(), **setting))
    got = _kept(logits, **setting)
    # A sum of 20,000 float32 terms may put the border of top_p one or two tokens elsewhere than exact sums do.
    allowed = 2 if setting.get("top_p", 1) < 1 and size > 1000 else 0
    assert len(got ^ expected) <= allowed


def _check_top_p(logits: np.ndarray, p: float) -> None:
    """What top-p keeps is what sorting everything keeps, but for float32's rounding where the sum reaches p."""
    order = np.lexsort((np.arange(logits.size), -logits))
    mass = np.exp(logits[order].astype(np.float64) - logits.max())
    reach = mass.cumsum() / mass.sum()
    kept = _kept(logits, top_p=p)
    count, error = len(kept), 1e-6
    assert reach[count - 1] >= p - error
    assert count == 1 or reach[count - 2] < p + error
    # As many as these: of equal ones the first. Logits that differ by less than float32's exp can tell count as equal.
    for missing in set(order[:count].tolist()) - kept:
        assert logits[missing] - min(logits[token] for token in kept) < error
    least = float(logits[list(kept)].min())
    equal = np.flatnonzero(logits == np.float32(least))
    chosen = [token in kept for token in equal.tolist()]
    assert chosen == sorted(chosen, reverse=True)


SHAPES = {
    "flat": lambda x: 0.001 * x,
    "unsure": lambda x: 0.3 * x,
    "sure": lambda x: 3 * x,
    "peaked": lambda x: 12 * x,
    "far": lambda x: 3 * x + 500,
    "deep": lambda x: 3 * x - 500,
    "tied": np.round,
    "mostly tied": lambda x: np.maximum(x, 0.5),
    "constant": np.zeros_like,
    "few possible": lambda x: np.where(x > 2, x, -np.inf),
    "a few likely": lambda x: np.where(x > 3, x + 9, x / 9),
    "rising": np.sort,
}


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=15, deadline=None)
@given(
    st.one_of(st.integers(1, 50), st.integers(2000, 9000), st.integers(30_000, VOCAB)),
    st.one_of(st.sampled_from([0.0, 0.5, 0.95, 0.999999]), st.floats(0, 1, exclude_max=True)),
    st.integers(0, 99),
)
def test_top_p_equals_sorting(shape: str, size: int, p: float, seed: int) -> None:
    logits = SHAPES[shape](_logits(size, seed, 1.0)).astype(np.float32)
    logits[seed % size] = max(3.5, logits.max())  # something is possible
    _check_top_p(logits, p)


@pytest.mark.parametrize("p", [0.01, 0.5, 0.95])
@pytest.mark.parametrize("sampled", [-20.0, -1.0, 1.0, 20.0])
def test_top_p_where_the_sample_misleads(sampled: float, p: float) -> None:
    logits = _logits(50_000, scale=0.1)
    logits[:: int(50_000 ** (1 / 3))] += sampled
    _check_top_p(logits, p)


@pytest.mark.parametrize(("size", "p", "count"), [(40_000, 0.5, 20_000), (40_001, 0.5, 20_001), (3, 0.5, 2), (7, 0, 1)])
def test_of_equal_tokens_top_p_keeps_the_first(size: int, p: float, count: int) -> None:
    assert _kept(np.zeros(size, np.float32), top_p=p) == set(range(count))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=60), st.integers(1, 70))
def test_ties_go_to_the_lowest_ids(values: list[int], k: int) -> None:
    logits = np.array(values, np.float32)
    assert largest(logits, k).tolist() == sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]


@pytest.mark.parametrize("k", [1, 2, 40, 500, 2000, 30_000])
def test_largest_of_many(k: int) -> None:
    for logits in (
        _logits(30_011),
        np.zeros(30_011, np.float32),
        np.round(_logits(30_011)),
        -np.arange(30_011, dtype="f4"),
    ):
        assert largest(logits, k).tolist() == np.argsort(-logits, kind="stable")[:k].tolist()
    mostly = np.full(30_011, -np.inf, np.float32)
    mostly[[5, 29_999, 12]] = [1, 3, 3]
    assert largest(mostly, 3).tolist() == [12, 29_999, 5]


CASES: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"temperature": 2.0, "top_k": 5},
    {"top_p": 0.8},
    {"min_p": 0.2},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
]


def _chi_square(counts: Counter[int], expected: dict[int, float], draws: int) -> float:
    """Chi-square over its degrees of freedom; rare tokens are counted together."""
    common = [i for i, p in expected.items() if p * draws >= 8]
    cells = [(counts[i], expected[i] * draws) for i in common]
    rest = draws - sum(c for c, _ in cells), draws - sum(e for _, e in cells)
    if rest[1] >= 8:
        cells.append(rest)
    return sum((c - e) ** 2 / e for c, e in cells) / max(1, len(cells) - 1)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_distribution_is_the_twins(case: dict[str, Any]) -> None:
    logits, draws = _logits(37, seed=3, scale=1.5), 4000
    sampler = Sampler(_off(**case), 37)
    counts = Counter(sampler.sample(logits, []).id for _ in range(draws))
    expected = naive.distribution(logits.tolist(), **case)
    assert set(counts) <= set(expected)
    assert _chi_square(counts, expected, draws) < 1.8  # the seed is fixed, so this passes always or never


def test_the_distribution_test_can_fail() -> None:
    logits, draws = _logits(37, seed=3, scale=1.5), 4000
    sampler = Sampler(_off(temperature=1.15), 37)
    counts = Counter(sampler.sample(logits, []).id for _ in range(draws))
    assert _chi_square(counts, naive.distribution(logits.tolist()), draws) > 1.8


@pytest.mark.parametrize(
    "penalty", [(1.3, 0, 0, 64), (1.0, 0.5, 0, 64), (1.0, 0, 0.7, 64), (0.8, -0.5, 0.3, 5), (2, 1, 1, -1)]
)
def test_penalties_equal_the_twin(penalty: tuple[float, float, float, int]) -> None:
    repeat, presence, frequency, last_n = penalty
    logits = _logits(50, seed=1)
    history = np.random.default_rng(2).integers(0, 50, 100).tolist()
    seen: list[np.ndarray] = []

    def spy(_: list[int], values: np.ndarray) -> np.ndarray:
        seen.append(values.copy())
        return values

    params = _off(
        repeat_penalty=repeat,
        presence_penalty=presence,
        frequency_penalty=frequency,
        penalty_last_n=last_n,
        processors=(spy,),
    )
    Sampler(params, 50).sample(logits, history)
    expected = naive.penalized(logits.tolist(), history, repeat, presence, frequency, last_n)
    np.testing.assert_allclose(seen[0], expected, rtol=1e-5, atol=1e-5)


def test_no_recent_tokens_no_penalty() -> None:
    logits = np.array([5.0, 4.9, 0], np.float32)
    for history, last_n in (([], 64), ([0, 0], 0)):
        params = _off(temperature=0, repeat_penalty=9.0, penalty_last_n=last_n)
        assert Sampler(params, 3).sample(logits, history).id == 0
    assert Sampler(_off(temperature=0, repeat_penalty=9.0), 3).sample(logits, [0, 0]).id == 1


def test_greedy_takes_the_lowest_of_equals() -> None:
    logits = np.array([1, 7, 7, -np.inf], np.float32)
    sampler = Sampler(SamplingParams(temperature=0), 4)
    assert [sampler.sample(logits, []).id for _ in range(3)] == [1, 1, 1]


def test_logits_are_not_changed() -> None:
    logits = _logits(5000)
    logits.flags.writeable = False
    before = logits.copy()
    params = SamplingParams(repeat_penalty=1.5, logit_bias={3: 2.0}, processors=(lambda h, x: np.negative(x, out=x),))
    Sampler(params, 5000).sample(logits, [1, 2, 3])
    assert np.array_equal(logits, before)


def test_seeds_reproduce() -> None:
    logits = _logits(3000)

    def run(seed: int | None, n: int = 30) -> list[int]:
        sampler = Sampler(SamplingParams(temperature=3.0, top_k=0, top_p=1, min_p=0, seed=seed), 3000)
        return [sampler.sample(logits, []).id for _ in range(n)]

    assert run(5) == run(5) != run(6)
    assert run(None) != run(None)
    assert run(-1) == run((1 << 64) - 1)  # negative seeds of other APIs are the same bits


def test_random_numbers_are_those_of_pcg64() -> None:
    """The promise of the same numbers on every platform: PCG64's published stream, one number a token."""
    sampler = Sampler(_off(seed=42), 1000)
    got = [sampler.sample(np.zeros(1000, np.float32), []).id for _ in range(5)]
    assert got == [
        773,
        438,
        858,
        697,
        94,
    ]  # floor(1000 * u): u = 0.77395605, 0.43887844, 0.85859792, 0.69736803, 0.09417735


def test_reset_starts_over() -> None:
    logits = _logits(3000)
    sampler = Sampler(SamplingParams(temperature=3.0, seed=1), 3000)
    first = [sampler.sample(logits, []).id for _ in range(10)]
    sampler.reset()
    assert [sampler.sample(logits, []).id for _ in range(10)] == first


def test_logit_bias() -> None:
    logits = np.array([3, 2, 1], np.float32)
    assert Sampler(_off(temperature=0, logit_bias={2: 5.0}), 3).sample(logits, []).id == 2
    banned = Sampler(_off(logit_bias={0: -math.inf, 1: -math.inf}), 3)
    assert {banned.sample(logits, []).id for _ in range(20)} == {2}


def test_bias_is_copied() -> None:
    bias = {2: 5.0}
    params = SamplingParams(logit_bias=bias)
    bias[2] = 0.0
    assert params.logit_bias == {2: 5.0}


def test_processors_run_in_order_with_the_history() -> None:
    calls: list[tuple[str, list[int]]] = []

    def first(history: list[int], logits: np.ndarray) -> np.ndarray:
        calls.append(("first", history))
        return logits.astype(np.float64) * 0  # another array, another dtype

    def second(history: list[int], logits: np.ndarray) -> np.ndarray:
        calls.append(("second", history))
        assert logits.dtype == np.float32 and not logits.any()
        logits[:] = -np.inf
        logits[4] = 0
        history.clear()  # its own copy
        return logits

    history = [1, 2]
    sampler = Sampler(SamplingParams(processors=(first, second)), 5)
    assert sampler.sample(_logits(5), history).id == 4
    assert [name for name, _ in calls] == ["first", "second"] and calls[0][1] == [1, 2] and history == [1, 2]


@pytest.mark.parametrize("result", [None, np.zeros(4, np.float32), np.zeros((5, 1)), np.array(["x"] * 5), 1.0])
def test_wrong_processor_results(result: Any) -> None:
    sampler = Sampler(SamplingParams(processors=(lambda h, x: result,)), 5)
    with pytest.raises(LogitsError, match=r"must return float32\[5\]"):
        sampler.sample(_logits(5), [])


def test_logprobs_are_those_of_the_model() -> None:
    logits = _logits(500)
    exact = np.log(naive.softmax(logits.tolist()))
    params = SamplingParams(temperature=0.1, logprobs=3, logit_bias={499: 100.0}, seed=1)
    token = Sampler(params, 500).sample(logits, [])
    assert token.id == 499 and token.logprob == pytest.approx(exact[499], abs=1e-4)
    assert token.top_logprobs is not None
    assert [i for i, _ in token.top_logprobs] == np.argsort(-exact)[:3].tolist()
    assert [x for _, x in token.top_logprobs] == pytest.approx(sorted(exact)[::-1][:3], abs=1e-4)
    alone = Sampler(SamplingParams(logprobs=0), 500).sample(logits, [])
    assert alone.top_logprobs == () and alone.logprob is not None
    assert Sampler(SamplingParams(), 500).sample(logits, []).logprob is None
    many = Sampler(SamplingParams(logprobs=10**6), 500).sample(logits, [])
    assert many.top_logprobs is not None and len(many.top_logprobs) == 500


def test_impossible_tokens_are_never_drawn() -> None:
    logits = np.full(10_000, -np.inf, np.float32)
    logits[[3, 7777]] = 0, 0
    for params in (SamplingParams(seed=1), _off(), _off(top_p=0.99), _off(min_p=0.1), _off(temperature=1e-300)):
        sampler = Sampler(params, 10_000)
        assert {sampler.sample(logits, [3]).id for _ in range(30)} == {3, 7777}


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(temperature=0), _off(), _off(top_p=0.5)])
def test_unusable_logits(params: SamplingParams) -> None:
    sampler = Sampler(params, 5000)
    for bad, reason in ((np.nan, "NaN"), (np.inf, r"\+inf")):
        logits = _logits(5000)
        logits[4321] = bad
        with pytest.raises(LogitsError, match=reason):
            sampler.sample(logits, [])
    with pytest.raises(LogitsError, match="forbidden"):
        sampler.sample(np.full(5000, -np.inf, np.float32), [])
    for wrong in (np.zeros(4999, np.float32), np.zeros((1, 5000), np.float32), np.zeros(5000, np.int32)):
        with pytest.raises(LogitsError, match=r"float32\[5000\]"):
            sampler.sample(wrong, [])
    assert isinstance(sampler.sample(_logits(5000), []), SampledToken)  # still usable


def test_history_outside_the_vocabulary() -> None:
    sampler = Sampler(SamplingParams(repeat_penalty=1.1), 10)
    for history in ([10], [-1]):
        with pytest.raises(SamplingError, match="history"):
            sampler.sample(_logits(10), history)


WRONG: list[dict[str, Any]] = [
    {"temperature": -0.1},
    {"temperature": math.nan},
    {"temperature": math.inf},
    {"temperature": "1"},
    {"temperature": True},
    {"top_k": -1},
    {"top_k": 1.5},
    {"top_p": 1.1},
    {"top_p": -0.1},
    {"min_p": 2},
    {"repeat_penalty": 0},
    {"repeat_penalty": -1},
    {"presence_penalty": math.inf},
    {"frequency_penalty": None},
    {"penalty_last_n": -2},
    {"penalty_last_n": 1.0},
    {"logit_bias": [1]},
    {"logit_bias": {-1: 1.0}},
    {"logit_bias": {"5": 1.0}},
    {"logit_bias": {5: math.nan}},
    {"logit_bias": {5: math.inf}},
    {"logit_bias": {5: "x"}},
    {"seed": 1.5},
    {"seed": 1 << 64},
    {"logprobs": -1},
    {"logprobs": True},
    {"processors": (1,)},
    {"processors": print},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_wrong_parameters(wrong: dict[str, Any]) -> None:
    with pytest.raises(SamplingError, match=next(iter(wrong))) as caught:
        SamplingParams(**wrong)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, InvalidRequest)


def test_numpy_numbers_are_numbers() -> None:
    params = SamplingParams(temperature=np.float32(0.5), top_k=np.int64(3), logit_bias={np.int64(1): np.float32(2)})
    assert params.logit_bias == {1: 2.0}


def test_bias_outside_the_vocabulary() -> None:
    with pytest.raises(SamplingError, match="token 10"):
        Sampler(SamplingParams(logit_bias={10: 1.0}), 10)
    with pytest.raises(SamplingError, match="vocabulary of 0"):
        Sampler(SamplingParams(), 0)


@pytest.mark.parametrize("size", [1, 2, 39, 40, 41])
def test_tiny_vocabularies(size: int) -> None:
    sampler = Sampler(SamplingParams(seed=1), size)
    assert 0 <= sampler.sample(_logits(size), []).id < size


@pytest.mark.parametrize("scale", [3.0, 0.001], ids=["sure", "flat"])
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(seed=1),
        SamplingParams(temperature=0),
        SamplingParams(repeat_penalty=1.1, presence_penalty=0.1),
        SamplingParams(top_k=0, min_p=0),
        SamplingParams(top_k=0, top_p=1),
    ],
    ids=["default", "greedy", "penalties", "top-p", "min-p"],
)
def test_a_token_takes_less_than_half_a_millisecond(params: SamplingParams, scale: float) -> None:
    """Measured at most 0.45 ms (benchmarks/sampling.py); the bound here is wide for slow and busy machines."""
    logits, history = _logits(VOCAB, scale=scale), list(range(2000))
    sampler = Sampler(params, VOCAB)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        sampler.sample(logits, history)
        times.append(time.perf_counter() - start)
    assert min(times) < 2e-3
