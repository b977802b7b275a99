"""Linear quantization against torch, quanto, compressed-tensors and HQQ, as recorded in tests/fixtures/linear.npz."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from halfbyte.formats.quants import linear
from halfbyte.formats.quants.linear import Parameters, Scheme, dequantize, parameters, quantize
from halfbyte.formats.quants.linear.rules import FUSED, PRODUCT_SUM, QUOTIENT, ROUNDINGS

Arrays = dict[str, npt.NDArray[Any]]
TIES = 4  # the row of them

with np.load(Path(__file__).parents[1] / "fixtures/linear.npz") as file:
    FIXTURE: Arrays = dict(file)
CASES = sorted({key.rpartition("/")[0] for key in FIXTURE if "/" in key})
PEERS = sorted({case.partition("/")[0] for case in CASES})


def scheme_of(case: str) -> Scheme:
    _, rule, per, bits = case.split("/")
    return linear.scheme(rule, int(bits), int(per) if per.isdigit() else per)  # type: ignore[arg-type]


def of_case(found: Arrays, case: str) -> Arrays:
    return {key.rpartition("/")[2]: v for key, v in found.items() if key.startswith(f"{case}/")}


def check(case: str, found: Arrays, w: npt.NDArray[np.float32]) -> None:
    """Everything that a library says about a case."""
    peer = case.partition("/")[0]
    {"torch": _torch, "quanto": _quanto, "compressed_tensors": _compressed_tensors, "hqq": _hqq}[peer](
        scheme_of(case), of_case(found, case), w
    )


def _torch(scheme: Scheme, theirs: Arrays, w: npt.NDArray[np.float32]) -> None:
    """One set of parameters, and three ways to round with them."""
    w = w[TIES].reshape(3, -1) if scheme.per == "tensor" else w[: len(theirs.get("codes", w))]
    ours = parameters(w, scheme)
    assert ours.zero is not None
    same(ours.scale, theirs["scale"])
    same(ours.zero, theirs["zero"])
    if "faked" in theirs:
        same(dequantize(quantize(w, scheme, ours), ours), theirs["faked"])
    if "codes" in theirs:
        real = dataclasses.replace(scheme.rule, rounding=FUSED if scheme.per == "tensor" else PRODUCT_SUM)
        same(quantize(w, dataclasses.replace(scheme, rule=real), ours), theirs["codes"])
        same(dequantize(theirs["codes"], ours), theirs["weights"])


def _quanto(scheme: Scheme, theirs: Arrays, w: npt.NDArray[np.float32]) -> None:
    w = w[: len(theirs["codes"])]
    ours = parameters(w, scheme)
    same(ours.scale, theirs["scale"])
    if ours.shift is not None:
        same(ours.shift, theirs["shift"])
    codes = quantize(w, scheme, ours)
    same(codes, theirs["codes"])
    same(dequantize(codes, ours), theirs["weights"])
    if "packed" in theirs:  # a group is a row of what is packed
        groups = codes.reshape(-1, scheme.per)  # type: ignore[arg-type]
        same(linear.stripe(groups, scheme.bits), theirs["packed"])
        same(linear.unstripe(theirs["packed"], scheme.bits, len(groups)), groups)


def _compressed_tensors(scheme: Scheme, theirs: Arrays, w: npt.NDArray[np.float32]) -> None:
    w = w[: len(theirs["codes"])]
    ours = parameters(w, scheme)
    assert ours.zero is not None
    same(ours.scale, theirs["scale"])
    same(ours.zero, theirs["zero"])
    codes = quantize(w, scheme, ours)
    same(codes, theirs["codes"])
    same(dequantize(codes, ours), theirs["weights"])
    unsigned = (codes.astype(np.int16) - scheme.low).astype(np.uint8)
    packed = linear.pack(unsigned, scheme.bits)
    same(packed.view("<i4"), theirs["packed"])  # 96 codes are whole words
    same(linear.unpack(theirs["packed"].view(np.uint8), scheme.bits, w.shape[1]), unsigned)


def _hqq(scheme: Scheme, theirs: Arrays, w: npt.NDArray[np.float32]) -> None:
    """It keeps the reciprocal of a scale: last bits of scales and zeros differ, and so do codes at ties."""
    w = w[: len(theirs["scale"])]
    ours = parameters(w, scheme)
    assert ours.zero is not None
    np.testing.assert_allclose(ours.scale, theirs["scale"], rtol=3e-7)
    np.testing.assert_allclose(ours.zero, theirs["zero"], rtol=5e-7)
    given = Parameters(theirs["scale"], theirs["zero"])
    packed, bits = theirs["packed"], scheme.bits
    words = packed.astype(np.uint32) if bits == 3 else packed
    groups = linear.unstripe(words, bits, w.size // scheme.per, first_is_high=True)  # type: ignore[operator]
    same(linear.stripe(groups, bits, words.dtype, first_is_high=True), words)
    codes = groups.reshape(w.shape)
    same(dequantize(codes, given), theirs["weights"])
    steps = np.abs(quantize(w, scheme, given).astype(int) - codes)
    assert steps.max() <= 1 and np.count_nonzero(steps) <= 2


def test_roundings_differ_at_ties() -> None:
    """Or the fixture would not tell them apart."""
    w = FIXTURE["weights"][TIES].reshape(3, -1)
    scheme = scheme_of("torch/torch_affine/tensor/8")
    found = parameters(w, scheme)
    rules = [dataclasses.replace(scheme.rule, rounding=rounding) for rounding in ROUNDINGS]
    codes = {quantize(w, Scheme(rule, 8, "tensor"), found).tobytes() for rule in rules}
    assert len(codes) == len(ROUNDINGS)


def same(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> None:
    np.testing.assert_array_equal(ours, np.broadcast_to(theirs, ours.shape))


@pytest.mark.parametrize("case", CASES)
def test_the_same_as_libraries(case: str) -> None:
    check(case, FIXTURE, FIXTURE["weights"])


def test_all_libraries_are_there() -> None:
    assert PEERS == ["compressed_tensors", "hqq", "quanto", "torch"] and len(CASES) == 30


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        ("torch/torch_affine/row/8", {"least_scale": 0.0}),
        ("torch/torch_affine/row/8", {"span": "min..max"}),
        ("torch/torch_affine/row/8", {"rounding": QUOTIENT}),
        ("torch/torch_symmetric/row/4", {"steps": "2^b - 2"}),
        ("compressed_tensors/compressed_tensors/32/4", {"rounding": QUOTIENT}),
        ("quanto/quanto/32/4", {"zero": "rounded shift"}),
    ],
)
def test_another_rule_is_noticed(case: str, fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are hard enough: each part of a rule shows in them."""
    name = scheme_of(case).rule
    wrong = {key: dataclasses.replace(rule, **fault) if rule == name else rule for key, rule in linear.RULES.items()}
    monkeypatch.setattr("halfbyte.formats.quants.linear.rules.RULES", wrong)
    with pytest.raises(AssertionError):
        check(case, FIXTURE, FIXTURE["weights"])
