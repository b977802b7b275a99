"""Every family on the CPU backend: the logits of the reference backend, however the tokens are cut into steps.

With HALFBYTE_TEST_BACKEND=reference each kernel is replaced by the NumPy definition of its op (see `compiled`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import halfbyte
import numpy as np
import pytest
from halfbyte.formats.errors import Cancelled, UnsupportedError
from halfbyte.formats.gguf import GGMLType, GGUFFile
from halfbyte.runtime.backends.base import CancelFlag, Executor
from halfbyte.runtime.backends.cpu import CPUBackend
from halfbyte.runtime.backends.cpu.executor import CPUExecutor
from halfbyte.runtime.backends.reference import ReferenceBackend
from halfbyte.runtime.graph.ir import Graph
from halfbyte.runtime.graph.rewrites import rewrite
from halfbyte.runtime.models import ModelSpec, build_model

from ..builders import CASES, N_TOKENS, Case, open_case
from ..switches import backend, needs_kernels
from ..tolerances import HALF_KV, INT8_LOGITS
from .running import N_PAGES, distance, page_table, prefill, run_in_chunks, step

MODEL = Path(halfbyte.__file__).parent / "runtime/assets/stories260k.gguf"
EXPECTED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "fixtures/stories260k_expected.json").read_text(encoding="utf-8")
)


def compiled(graph: Graph, threads: int = 2, max_tokens: int = 2 * N_TOKENS) -> Executor:
    """On the CPU backend; or what its kernels mean: its graph by the definitions of the ops, with half floats kept."""
    if backend() == "reference":
        return ReferenceBackend(np.float16).compile(rewrite(graph), n_pages=N_PAGES, max_tokens=max_tokens)
    return CPUBackend().compile(graph, n_pages=N_PAGES, max_tokens=max_tokens, threads=threads)


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def spec(case: Case, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return open_case(case, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def executor(spec: ModelSpec) -> Iterator[Executor]:
    executor = compiled(spec.graph)
    yield executor
    executor.close()


@pytest.fixture(scope="module")
def expected(case: Case, spec: ModelSpec) -> np.ndarray:
    reference = ReferenceBackend().compile(spec.graph, n_pages=N_PAGES, max_tokens=N_TOKENS)
    return prefill(reference, case.tokens())


def test_prefill(case: Case, executor: Executor, expected: np.ndarray) -> None:
    assert distance(prefill(executor, case.tokens()), expected) < HALF_KV


def test_token_by_token(case: Case, executor: Executor, expected: np.ndarray) -> None:
    assert distance(run_in_chunks(executor, case.tokens(), [1] * N_TOKENS), expected) < HALF_KV


def test_mixed_chunks(case: Case, executor: Executor, expected: np.ndarray) -> None:
    assert distance(run_in_chunks(executor, case.tokens(), [5, 1, 19, 1, 1, 10]), expected) < HALF_KV


def test_two_sequences_in_one_step(case: Case, executor: Executor, expected: np.ndarray) -> None:
    one, two = case.tokens(), case.tokens()[::-1][:29]
    alone = prefill(executor, two)
    pages = page_table(2)
    first = executor.run(step([(0, 0, one[:20]), (1, 0, two[:9])], pages, range(29))).copy()
    second = executor.run(step([(1, 9, two[9:]), (0, 20, one[20:])], pages, range(37))).copy()
    assert distance(np.concatenate([first[:20], second[20:]]), expected) < HALF_KV
    assert distance(np.concatenate([first[20:], second[:20]]), alone) < HALF_KV


def test_only_wanted_rows_come_out(case: Case, executor: Executor, expected: np.ndarray) -> None:
    tokens = case.tokens()
    few = executor.run(step([(0, 0, tokens)], page_table(1), [3, 30])).copy()
    assert distance(few, expected[[3, 30]]) < HALF_KV
    assert executor.run(step([(0, 0, tokens)], page_table(1), [])).shape[0] == 0


@needs_kernels  # NumPy's products may sum in another order for another number of rows
@pytest.mark.parametrize("kind", [GGMLType.F32, GGMLType.Q8_0])
@pytest.mark.parametrize("is_prompt", [True, False])
def test_company_changes_nothing(kind: GGMLType, is_prompt: bool, tmp_path: Path) -> None:
    """Bit for bit: within prompts, and within generated tokens, a row does not depend on the others of its step."""
    case = CASES["llama"]
    executor = compiled(open_case(case, tmp_path, matrix_type=kind).graph)
    one, two = case.tokens(), case.tokens()[::-1][:29]
    pages = page_table(2)

    def run(*chunks: tuple[int, int, np.ndarray]) -> np.ndarray:
        together = step(chunks, pages, range(sum(len(tokens) for *_, tokens in chunks)))
        return executor.run(replace(together, is_prompt=is_prompt)).copy()

    alone = np.concatenate([run((0, 0, one[:20])), run((0, 20, one[20:]))])
    shuffled = [run((0, 0, one[:11]), (1, 0, two[:9])), run((1, 9, two[9:]), (0, 11, one[11:]))]
    assert np.array_equal(alone, np.concatenate([shuffled[0][:11], shuffled[1][20:]]))
    executor.close()


@needs_kernels
@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(threads: int, tmp_path: Path) -> None:
    """Bit for bit: threads share rows, never sums."""
    case = CASES["llama"]
    graph = open_case(case, tmp_path).graph
    one, other = compiled(graph, 2), compiled(graph, threads)
    sizes = [5, 1, 19, 1, 1, 10]
    assert np.array_equal(run_in_chunks(one, case.tokens(), sizes), run_in_chunks(other, case.tokens(), sizes))
    one.close()
    other.close()


class Restless:
    """Another number of threads for every step, as on a machine with changing company."""

    def __init__(self, most: int) -> None:
        self.most, self.threads, self.steps, self.settled = most, most, 0, 2

    def note(self, seconds: float, late: int) -> None:
        assert seconds > 0 and late >= 0
        self.steps += 1
        self.threads = self.threads * 3 % (self.most + 1) or 1


@needs_kernels
def test_threads_may_come_and_go(tmp_path: Path) -> None:
    case = CASES["mixtral"]
    graph = open_case(case, tmp_path).graph
    one, other = compiled(graph, 1), compiled(graph, 4)
    other._crowding = restless = Restless(4)  # type: ignore[assignment]
    sizes = [7, *[1] * 30]
    assert np.array_equal(run_in_chunks(one, case.tokens(), sizes), run_in_chunks(other, case.tokens(), sizes))
    assert restless.steps == 30, "prompts do not count"
    one.close()
    other.close()


@pytest.mark.parametrize("kind", [GGMLType.Q8_0, GGMLType.Q4_0, GGMLType.F16, GGMLType.BF16])
@pytest.mark.parametrize("name", ["llama", "mixtral", "phi3"])
def test_quantized_weights(name: str, kind: GGMLType, tmp_path: Path) -> None:
    case = CASES[name]
    spec = open_case(case, tmp_path, matrix_type=kind)
    reference = ReferenceBackend().compile(spec.graph, n_pages=N_PAGES, max_tokens=N_TOKENS)
    expected = prefill(reference, case.tokens())
    executor = compiled(spec.graph)
    # A router near a tie may choose another expert after rounding: such a token is far off, and some of those after it,
    # which see it, are as well.
    first, share = (6, 0.5) if name == "mixtral" else (N_TOKENS, 1.0)
    for sizes in ([N_TOKENS], [1] * N_TOKENS):
        error = np.abs(run_in_chunks(executor, case.tokens(), sizes) - expected).max(axis=1) / np.abs(expected).max()
        assert error[:first].max() < INT8_LOGITS and np.quantile(error, share) < INT8_LOGITS
    executor.close()


@pytest.mark.parametrize("entry", EXPECTED, ids=lambda entry: entry["prompt"])
def test_stories(entry: dict[str, Any]) -> None:
    """A real, trained model: greedy tokens exactly, mean likelihood within 1e-4."""
    with GGUFFile.open(MODEL) as file:
        executor = compiled(build_model(file).graph, max_tokens=128)
    prompt, pages = np.array(entry["ids"], np.int32), page_table(1)
    logits = executor.run(step([(0, 0, prompt)], pages, [len(prompt) - 1]))
    greedy: list[int] = []
    while len(greedy) < len(entry["greedy"]):
        greedy.append(int(logits[0].argmax()))
        last = (0, len(prompt) + len(greedy) - 1, np.array(greedy[-1:], np.int32))
        logits = executor.run(step([last], pages, [0]))
    assert greedy == entry["greedy"]
    tokens = np.array(entry["ids"] + entry["greedy"], np.int32)
    logits = prefill(executor, tokens)[:-1].astype(np.float64)
    top = logits.max(axis=-1)
    nll = np.log(np.exp(logits - top[:, None]).sum(axis=-1)) + top - logits[np.arange(len(logits)), tokens[1:]]
    assert float(nll.mean()) == pytest.approx(entry["nll_mean"], abs=1e-4)
    executor.close()


def test_cancel_before_and_steps_that_cannot_be(executor: Executor, case: Case) -> None:
    flag = CancelFlag()
    flag.set()
    with pytest.raises(Cancelled):
        executor.run(step([(0, 0, case.tokens())], page_table(1), [0]), flag)
    with pytest.raises(ValueError, match="takes 1 to"):
        executor.run(step([(0, 0, np.zeros(2 * N_TOKENS + 1, np.int32))], page_table(1), [0]))


@needs_kernels
def test_running_kernels_watch_the_flag_of_the_caller(executor: CPUExecutor, case: Case) -> None:
    flag = CancelFlag()
    executor.run(step([(0, 0, case.tokens())], page_table(1), [0]), flag)
    assert executor._step["cancel"] == flag.word.ctypes.data


@needs_kernels
def test_pages_without_kernels_are_refused(tmp_path: Path) -> None:
    backend = CPUBackend(np.float64)
    with pytest.raises(UnsupportedError, match="as float64, the CPU kernels of this version read float16 and float32"):
        backend.compile(open_case(CASES["llama"], tmp_path).graph, n_pages=1, max_tokens=1, threads=1)


@needs_kernels
def test_a_type_without_kernels_is_refused(tmp_path: Path) -> None:
    graph = open_case(CASES["llama"], tmp_path).graph
    node = next(n for n in graph.nodes if n.op == "linear")
    weight = node.weights["weight"]
    object.__setattr__(weight, "type", GGMLType.Q8_K)
    with pytest.raises(UnsupportedError, match="Q8_K, which has no CPU kernel"):
        compiled(graph)
