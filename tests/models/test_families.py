"""Every family on the reference backend: the logits of transformers, however the tokens are cut into steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.errors import Cancelled
from halfbyte.formats.gguf import GGMLType
from halfbyte.formats.quants import codec_for, decode
from halfbyte.runtime.backends.base import CancelFlag
from halfbyte.runtime.backends.reference import ReferenceBackend, ReferenceExecutor
from halfbyte.runtime.graph.ir import Graph, Node
from halfbyte.runtime.models import FAMILIES, ModelSpec

from ..builders import CASES, ENCODERS, N_TOKENS, Arrays, Case, open_case
from ..fixtures.make import families as fixtures
from ..tolerances import BLAS_SUM
from .running import N_PAGES, distance, page_table, prefill, run_in_chunks, step

TOLERANCE = 1e-5  # float32 rounding in another order measures below 2e-6; 1e-4 would hide exact against tanh gelu
SAME = 1e-5  # the same sums in another order


def executor(graph: Graph) -> ReferenceExecutor:
    return ReferenceBackend().compile(graph, n_pages=N_PAGES, max_tokens=2 * N_TOKENS)


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def spec(case: Case, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return open_case(case, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def whole(case: Case, spec: ModelSpec) -> np.ndarray:
    return prefill(executor(spec.graph), case.tokens())


def test_fixture_belongs_to_the_case(case: Case) -> None:
    fixture = fixtures.load(case.name)
    assert str(fixture["fingerprint"]) == fixtures.fingerprint(case), "the case changed: make its fixture again"
    assert np.array_equal(fixture["tokens"], case.tokens())


def test_logits_are_those_of_transformers(case: Case, whole: np.ndarray) -> None:
    assert distance(whole, fixtures.load(case.name)["logits"]) < TOLERANCE


def test_token_by_token_is_prefill(case: Case, spec: ModelSpec, whole: np.ndarray) -> None:
    assert distance(run_in_chunks(executor(spec.graph), case.tokens(), [1] * N_TOKENS), whole) < SAME


def test_mixed_chunks_are_prefill(case: Case, spec: ModelSpec, whole: np.ndarray) -> None:
    assert distance(run_in_chunks(executor(spec.graph), case.tokens(), [5, 1, 19, 1, 1, 10]), whole) < SAME


def test_two_sequences_in_one_step(case: Case, spec: ModelSpec, whole: np.ndarray) -> None:
    one, two = case.tokens(), case.tokens()[::-1][:29]
    alone = prefill(executor(spec.graph), two)
    ex, pages = executor(spec.graph), page_table(2)
    first = ex.run(step([(0, 0, one[:20]), (1, 0, two[:9])], pages, range(29)))
    second = ex.run(step([(1, 9, two[9:]), (0, 20, one[20:])], pages, range(37)))
    assert distance(np.concatenate([first[:20], second[20:]]), whole) < SAME
    assert distance(np.concatenate([first[20:], second[:20]]), alone) < SAME


def test_only_wanted_rows_come_out(case: Case, spec: ModelSpec, whole: np.ndarray) -> None:
    ex = executor(spec.graph)
    tokens = case.tokens()
    assert distance(ex.run(step([(0, 0, tokens)], page_table(1), [3, 30])), whole[[3, 30]]) < SAME
    assert ex.run(step([(0, 0, tokens)], page_table(1), [])).shape == (0, spec.vocab_size)


# Oracles must be able to fail: each of these faults has to be noticed in every case that has the op.

FAULTS: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any] | None]]] = {
    "rope pairs": ("rope", lambda a: {"style": "norm" if a["style"] == "neox" else "neox"}),
    "rope frequency": ("rope", lambda a: {"inv_freq": a["inv_freq"] * np.float32(1.01)}),
    "rope magnitude": ("rope", lambda a: {"mscale": a["mscale"] * 1.01}),
    "rope dims": ("rope", lambda a: {"n_rot": a["n_rot"] - 2, "inv_freq": a["inv_freq"][:-1]}),
    "window one longer": ("attention", lambda a: {"window": a["window"] + 1} if a["window"] else None),
    "window missing": ("attention", lambda a: {"window": 0} if a["window"] else None),
    "attention scale": ("attention", lambda a: {"scale": a["scale"] * 1.01}),
    "rms eps": ("rms_norm", lambda a: {"eps": a["eps"] * 2}),
    "layer norm eps": ("layer_norm", lambda a: {"eps": a["eps"] * 2}),
    "activation": ("glu", lambda a: {"act": "gelu" if a["act"] != "gelu" else "silu"}),
    "plain activation": ("activation", lambda a: {"act": "gelu" if a["act"] != "gelu" else "gelu_tanh"}),
    "sums of experts": ("moe_route", lambda a: {"normalize": not a["normalize"]}),
    "fewer experts": ("moe_route", lambda a: {"scale": 1.01}),
    "embedding scale": ("embed", lambda a: {"scale": a["scale"] * 1.01}),
    "score cap": ("attention", lambda a: {"softcap": a["softcap"] * 1.01} if a["softcap"] else None),
    "softcap": ("softcap", lambda a: {"cap": a["cap"] * 1.01}),
}


def with_fault(graph: Graph, op: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Graph | None:
    """The graph with every node of one op changed, None where there is nothing to change."""
    changed = False

    def mutate(node: Node) -> Node:
        nonlocal changed
        update = change(dict(node.attrs)) if node.op == op else None
        changed |= update is not None
        return node if update is None else replace(node, attrs=MappingProxyType({**node.attrs, **update}))

    nodes = tuple(mutate(node) for node in graph.nodes)
    return replace(graph, nodes=nodes) if changed else None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(fault: str, tmp_path: Path) -> None:
    noticed = 0
    for case in CASES.values():
        spec = open_case(case, tmp_path)
        broken = with_fault(spec.graph, *FAULTS[fault])
        if broken is not None:
            expected = fixtures.load(case.name)["logits"]
            assert not distance(prefill(executor(broken), case.tokens()), expected) < TOLERANCE, case.name
            noticed += 1
    assert noticed, "no case has the op: the fault proves nothing"


def test_a_changed_weight_is_noticed(tmp_path: Path) -> None:
    """Every tensor of every case matters: a little noise on any of them shows in the logits."""
    rng = np.random.default_rng(8)
    for case in CASES.values():
        spec = open_case(case, tmp_path)
        expected = fixtures.load(case.name)["logits"]
        ex = executor(spec.graph)
        prefill(ex, case.tokens())  # decodes the weights
        for weight, values in ex._decoded.items():
            if weight.name.endswith("attn_qkv.bias[84:168]"):
                continue  # without rope, a bias on all keys shifts all scores alike: softmax does not see it
            original = values.copy()
            values += rng.normal(0, 0.02, values.shape).astype(np.float32)
            assert not distance(prefill(ex, case.tokens()), expected) < TOLERANCE, (case.name, weight.name)
            values[...] = original


@pytest.mark.parametrize("type_", [GGMLType.F16, GGMLType.Q8_0, GGMLType.Q4_0])
def test_quantized_weights_are_decoded(type_: GGMLType, tmp_path: Path) -> None:
    """A quantized file equals a float32 file of the rounded weights; some matrices have no whole blocks and stay."""

    def round_weights(_: dict[str, Any], tensors: Arrays) -> None:
        for name, array in tensors.items():
            if array.ndim == 2 and array.shape[1] % type_.block_size == 0:
                tensors[name] = decode(codec_for(type_).encode(np.ascontiguousarray(array)), type_)

    case = CASES["qwen2"]
    quantized, rounded = open_case(case, tmp_path, matrix_type=type_), open_case(case, tmp_path, change=round_weights)
    types = {weight.type for node in quantized.graph.nodes for weight in node.weights.values()}
    assert types == {type_, GGMLType.F32}
    found, expected = (prefill(executor(spec.graph), case.tokens()) for spec in (quantized, rounded))
    assert distance(found, expected) < BLAS_SUM
    assert distance(found, fixtures.load(case.name)["logits"]) > TOLERANCE, "nothing was quantized"


def test_a_matrix_of_one_row_may_be_stored_as_a_vector(tmp_path: Path) -> None:
    """Older converters did so with the gate of the shared expert."""

    def squeeze(_: dict[str, Any], tensors: Arrays) -> None:
        for name in [name for name in tensors if name.endswith("ffn_gate_inp_shexp.weight")]:
            assert tensors[name].shape[0] == 1
            tensors[name] = tensors[name][0]

    case = CASES["qwen2moe"]
    found = prefill(executor(open_case(case, tmp_path, change=squeeze).graph), case.tokens())
    assert distance(found, fixtures.load(case.name)["logits"]) < TOLERANCE


def test_every_family_has_a_case() -> None:
    assert {case.architecture for case in (CASES | ENCODERS).values()} == set(FAMILIES)


def test_a_missing_fixture_fails() -> None:
    with pytest.raises(FileNotFoundError, match=r"python -m tests\.fixtures\.make\.families no_such_case"):
        fixtures.load("no_such_case")
    assert {path.stem for path in fixtures.FOLDER.glob("*.npz")} == set(CASES | ENCODERS)


def test_cancel_between_ops_leaves_earlier_positions_intact(tmp_path: Path) -> None:
    case = CASES["llama"]
    spec = open_case(case, tmp_path)
    ex, tokens, pages = executor(spec.graph), case.tokens(), page_table(1)
    whole = prefill(ex, tokens)
    ex.run(step([(0, 0, tokens[:30])], pages, []))
    cancel = CancelFlag()
    cancel.set()
    with pytest.raises(Cancelled):
        ex.run(step([(0, 30, tokens[30:])], pages, [6]), cancel)
    cancel.clear()
    assert distance(ex.run(step([(0, 30, tokens[30:])], pages, [6]), cancel), whole[[36]]) < SAME


def test_impossible_steps_are_refused(tmp_path: Path) -> None:
    case, pages = CASES["llama"], np.array([[0, 1, -1]], np.int32)
    ex = ReferenceBackend().compile(open_case(case, tmp_path).graph, n_pages=2, max_tokens=3)
    tokens = case.tokens()[:3]
    ex.run(step([(0, 62, tokens[:2])], pages, [0]))
    with pytest.raises(ValueError, match="a step of 4 tokens; this executor takes 1 to 3"):
        ex.run(step([(0, 0, case.tokens()[:4])], pages, [0]))
    with pytest.raises(ValueError, match="negative token"):
        ex.run(step([(0, 0, -tokens)], pages, [0]))
    for table in (pages, np.array([[0, 1, 2]], np.int32)):
        with pytest.raises(ValueError, match="has no page; pages are 0 to 1"):
            ex.run(step([(0, 62, tokens)], table, [0]))
    ex.close()
