"""The arithmetic of perplexity against sums written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from halfbyte.formats.errors import HalfbyteError
from halfbyte.tools.perplexity import ROWS, Estimate, check_length, cut_windows, score, token_nll


def test_windows_do_not_overlap_and_an_incomplete_one_is_left_out() -> None:
    assert list(cut_windows(range(11), 4, None)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_bos_takes_the_place_of_the_first_token() -> None:
    assert list(cut_windows(range(10, 18), 4, 1)) == [[1, 11, 12, 13], [1, 15, 16, 17]]


def test_nll_of_a_row_that_fits_in_the_head() -> None:
    logits = np.log(np.array([[1.0, 2.0, 5.0], [4.0, 4.0, 2.0]], np.float32))
    nll = token_nll(logits, np.array([2, 0]))
    np.testing.assert_allclose(nll, [math.log(8 / 5), math.log(10 / 4)], rtol=1e-6)
    assert nll.dtype == np.float64


def test_nll_over_several_blocks_of_rows_and_with_huge_logits() -> None:
    rng = np.random.default_rng(3)
    n, vocabulary = 2 * ROWS + 5, 37
    logits = (rng.standard_normal((n, vocabulary)) * 1000).astype(np.float32)
    targets = rng.integers(0, vocabulary, n)
    expected = []
    for row, target in zip(logits.astype(float).tolist(), targets.tolist(), strict=True):
        top = max(row)
        expected.append(top + math.log(sum(math.exp(x - top) for x in row)) - row[target])
    np.testing.assert_allclose(token_nll(logits, targets), expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(("length", "scored"), [(8, 3), (9, 4)])
def test_only_the_second_half_is_scored(length: int, scored: int) -> None:
    window = list(range(1, length + 1))
    logits = np.zeros((length, 20), np.float32)
    for i in range(length - 1):
        logits[i, window[i + 1]] = i  # every place has its own, larger probability
    got = score(logits, window)
    assert len(got) == scored
    expected = [math.log(19 + math.exp(i)) - i for i in range(length // 2, length - 1)]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_estimate_of_two_windows() -> None:
    estimate = Estimate()
    estimate.add(np.array([1.0, 2.0]))
    estimate.add(np.array([6.0]))
    assert estimate.n_tokens == 3
    assert estimate.nll == pytest.approx(3.0)
    assert estimate.ppl == pytest.approx(math.exp(3.0))
    assert estimate.error == pytest.approx(math.sqrt(((1 + 4 + 36) / 3 - 9) / 2) * math.exp(3.0))
    assert estimate.windows == pytest.approx([math.exp(1.5), math.exp(6.0)])


def test_an_impossible_model_is_infinite_not_an_error() -> None:
    estimate = Estimate()
    estimate.add(np.array([1e6]))
    assert estimate.ppl == math.inf
    assert math.isnan(estimate.error)


@pytest.mark.parametrize(("n_ids", "context", "message"), [(10, 3, "leaves nothing"), (10, 11, "has 10 tokens")])
def test_too_little_text_is_explained(n_ids: int, context: int, message: str) -> None:
    with pytest.raises(HalfbyteError, match=message):
        check_length(n_ids, context)
