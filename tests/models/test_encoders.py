"""Encoders: the vectors of transformers on both backends, and embeddings through the public API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte import CancelFlag, Cancelled, ContextOverflow, HalfbyteError, InvalidRequest, Model, UnsupportedError
from halfbyte.formats.gguf import GGUFFile
from halfbyte.runtime.backends.reference import ReferenceBackend, ReferenceExecutor
from halfbyte.runtime.models import build_model

from ..builders import ENCODERS, Case, open_case, write_embedding_model, write_gguf
from ..fixtures.make import families as fixtures
from ..switches import backend
from ..tolerances import HALF_KV
from .running import N_PAGES, distance, page_table, prefill, step
from .test_cpu import compiled
from .test_families import FAULTS, SAME, TOLERANCE, with_fault

FAULTS_HERE = {name: FAULTS[name] for name in ("attention scale", "layer norm eps")} | {
    "causal": ("attention", lambda a: {"causal": True}),
    "activation": ("activation", lambda a: {"act": "gelu_tanh"}),
    "type": ("embed", lambda a: {"scale": 0.9} if a["source"] == "first" else None),
}


@pytest.fixture(params=ENCODERS.values(), ids=list(ENCODERS))
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def reference(case: Case, folder: Path) -> ReferenceExecutor:
    return ReferenceBackend().compile(open_case(case, folder).graph, n_pages=N_PAGES, max_tokens=80)


def test_fixture_belongs_to_the_case(case: Case) -> None:
    assert str(fixtures.load(case.name)["fingerprint"]) == fixtures.fingerprint(case), "make its fixture again"


def test_vectors_are_those_of_transformers(case: Case, tmp_path: Path) -> None:
    assert distance(prefill(reference(case, tmp_path), case.tokens()), fixtures.load(case.name)["logits"]) < TOLERANCE


def test_cpu_and_company(case: Case, tmp_path: Path) -> None:
    """Kernels compute the same, whatever other texts are in the step."""
    executor, expected = compiled(open_case(case, tmp_path).graph), fixtures.load(case.name)["logits"]
    one, two, pages = case.tokens(), case.tokens()[::-1][:29], page_table(2)
    alone = prefill(executor, two)
    together = executor.run(step([(0, 0, one), (1, 0, two)], pages, range(66))).copy()
    executor.close()
    assert distance(together[:37], expected) < HALF_KV
    assert distance(together[37:], alone) < SAME


@pytest.mark.parametrize("fault", FAULTS_HERE)
def test_a_planted_fault_is_noticed(fault: str, tmp_path: Path) -> None:
    case = ENCODERS["bert"]
    broken = with_fault(open_case(case, tmp_path).graph, *FAULTS_HERE[fault])
    assert broken is not None
    found = prefill(ReferenceBackend().compile(broken, n_pages=N_PAGES, max_tokens=80), case.tokens())
    assert not distance(found, fixtures.load(case.name)["logits"]) < TOLERANCE




@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedding_model(tmp_path_factory.mktemp("m") / "bert.gguf")


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Model]:
    with Model.load(path, backend=backend(), threads=2) as loaded:
        yield loaded


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_pooling(model: Model) -> None:
    case = ENCODERS["bert"]
    vectors, tokens = fixtures.load("bert")["logits"], [case.tokens().tolist()]
    assert model.pooling == "mean"
    pooled = {"mean": vectors.mean(0, keepdims=True), "cls": vectors[:1], "last": vectors[-1:], "none": vectors}
    for pooling, expected in pooled.items():
        assert distance(model.embed(tokens, pooling=pooling, normalize=False), expected) < HALF_KV, pooling
        assert distance(model.embed(tokens, pooling=pooling), unit(expected)) < HALF_KV, pooling
    assert distance(model.embed(tokens), unit(pooled["mean"])) < HALF_KV


def test_many_texts_come_back_in_order(model: Model) -> None:
    """More than one step holds, of all lengths up to the context; each as if it were alone."""
    rng = np.random.default_rng(3)
    texts = ["".join(rng.choice(list("abc xyz"), n)) for n in rng.integers(0, 50, 120)]
    found = model.embed(texts)
    assert found.shape == (120, 96) and found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    for i in (0, 17, 119):
        assert distance(model.embed(texts[i]), found[[i]]) < SAME
    assert model.embed([]).shape == (0, 96)


def test_what_cannot_be_is_refused(model: Model) -> None:
    with pytest.raises(ContextOverflow, match="53"):
        model.embed(["a", "b " * 60])
    with pytest.raises(InvalidRequest, match="pooling='max'"):
        model.embed("a", pooling="max")
    with pytest.raises(InvalidRequest, match="empty"):
        model.embed([[]])
    for use in (
        lambda: model.generate("a"), lambda: model.chat([{"role": "user", "content": "a"}]), lambda: model.logits([1]),
    ):  # fmt: skip
        with pytest.raises(UnsupportedError, match="embeddings"):
            use()
    cancel = CancelFlag()
    cancel.set()
    with pytest.raises(Cancelled):
        model.embed("a", cancel=cancel)
    assert model.embed("a").shape == (1, 96)


def test_a_model_that_generates_makes_no_embeddings() -> None:
    with Model.load("stories260k", backend="reference") as model, pytest.raises(UnsupportedError, match="embedding"):
        model.embed("Once")


OTHERS = {"pooling_type": (4, "ranks"), "pooling_type ": (9, "0 to 4"), "attention.causal": (True, "only False")}


@pytest.mark.parametrize("key", OTHERS)
def test_other_encoders_are_refused(key: str, tmp_path: Path) -> None:
    value, said = OTHERS[key]

    def change(keys: dict[str, Any], tensors: Any) -> None:
        keys[f"bert.{key.strip()}"] = value

    written = write_gguf(ENCODERS["bert"], tmp_path / "m.gguf", change=change)
    with GGUFFile.open(written, use_mmap=False) as file, pytest.raises(HalfbyteError, match=said):
        build_model(file)
