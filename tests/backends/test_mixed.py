"""Graphs cut into parts: whatever runs where, the logits are those of the whole. No GPU is needed to see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from halfbyte.formats.errors import InvalidRequest
from halfbyte.runtime.backends.cpu import CPUBackend
from halfbyte.runtime.backends.mixed import MixedBackend
from halfbyte.runtime.backends.placement import ALL, Placement, layers_of, parse_place, placement_of
from halfbyte.runtime.backends.reference import ReferenceBackend
from halfbyte.runtime.graph.ir import Graph
from halfbyte.runtime.graph.parts import cut
from halfbyte.runtime.graph.rewrites import rewrite

from ..builders import CASES, ENCODERS, N_TOKENS, Case, open_case
from ..models.running import N_PAGES, distance, prefill, run_in_chunks

Places = Callable[[Graph], Sequence[str]]


def half(graph: Graph) -> list[str]:
    """The first layers here, the others there."""
    return ["cpu" if layer < 1 else "reference" for layer in layers_of(graph)]


def by_turns(graph: Graph) -> list[str]:
    """Every node elsewhere than the one before it."""
    return [("cpu", "reference")[i % 2] for i in range(len(graph.nodes))]


def experts_apart(graph: Graph) -> list[str]:
    return ["cpu" if any("exps" in w.name for w in node.weights.values()) else "reference" for node in graph.nodes]


def mixed(graph: Graph, places: Places) -> object:
    backends = {"cpu": CPUBackend(np.float32), "reference": ReferenceBackend()}
    backend = MixedBackend(lambda graph, pages, tokens: (places(graph), pages), backends.__getitem__)
    return backend.compile(graph, n_pages=N_PAGES, max_tokens=N_TOKENS, threads=1)


@pytest.mark.parametrize("places", [half, by_turns, experts_apart], ids=lambda p: p.__name__)
@pytest.mark.parametrize("case", [CASES["qwen2moe"], CASES["gemma3"], ENCODERS["bert"]], ids=lambda c: c.name)
def test_parts_compute_the_whole(case: Case, places: Places, tmp_path: Path) -> None:
    graph = open_case(case, tmp_path).graph
    expected = prefill(ReferenceBackend().compile(graph, n_pages=N_PAGES, max_tokens=N_TOKENS), case.tokens())
    executor = mixed(graph, places)
    assert distance(prefill(executor, case.tokens()), expected) < 1e-5
    if graph.is_causal:
        sizes = [N_TOKENS - 2, 1, 1]
        assert distance(run_in_chunks(executor, case.tokens(), sizes), expected) < 1e-5
    executor.close()


def test_pages_are_copied_in_all_parts(tmp_path: Path) -> None:
    executor = mixed(open_case(CASES["llama"], tmp_path).graph, half)
    pools = [part.kv for _, part in executor._parts]
    for i, pool in enumerate(pools):
        for keys in pool.keys.values():
            keys[1] = 1 + i
    executor.kv.copy_page(1, 4)
    assert all((keys[4] == 1 + i).all() for i, pool in enumerate(pools) for keys in pool.keys.values())
    assert sum(len(pool.keys) for pool in pools) == 3 and executor.kv.n_bytes == sum(pool.n_bytes for pool in pools)


def test_a_part_is_given_what_others_made_and_keeps_what_others_read(tmp_path: Path) -> None:
    graph = rewrite(open_case(CASES["qwen2moe"], tmp_path).graph)
    parts = cut(graph, experts_apart(graph))
    known: set[int] = set()
    for _, part in parts:
        assert {value.id for value in part.given} <= known
        known |= {value.id for value in part.kept}
    assert graph.logits.id in known
    assert sum(len(part.nodes) for _, part in parts) == len(graph.nodes)
    assert [spec for _, part in parts for spec in part.state] == list(graph.state)


def devices(graph: Graph, placement: Placement) -> dict[int, set[str]]:
    """Of each layer."""
    found: dict[int, set[str]] = {}
    for layer, device in zip(layers_of(graph), placement.of(graph), strict=True):
        found.setdefault(layer, set()).add(device)
    return found


LAYERS = [
    (0, ["cpu"] * 5),
    (1, ["cpu", "cpu", "cpu", "cuda:0", "cuda:0"]),
    (2, ["cpu", "cpu", "cuda:0", "cuda:0", "cuda:0"]),
    (3, ["cuda:0"] * 5),
    (99, ["cuda:0"] * 5),
    (ALL, ["cuda:0"] * 5),
]


@pytest.mark.parametrize(("gpu_layers", "expected"), LAYERS)
def test_last_layers_go_first_and_the_head_with_them(gpu_layers: int, expected: list[str], tmp_path: Path) -> None:
    """Embedding, three layers, head."""
    graph = open_case(CASES["llama"], tmp_path).graph
    assert devices(graph, Placement(gpu_layers)) == dict(zip(range(-1, 4), ({d} for d in expected), strict=True))


def test_layers_are_shared_in_proportion(tmp_path: Path) -> None:
    graph = open_case(CASES["llama"], tmp_path).graph
    found = devices(graph, Placement(ALL, split=(3, 2)))
    assert found == {-1: {"cuda:0"}, 0: {"cuda:0"}, 1: {"cuda:0"}, 2: {"cuda:1"}, 3: {"cuda:1"}}
    assert devices(graph, Placement(2, split=(0, 1)))[2] == {"cuda:1"}
    assert set().union(*devices(graph, Placement(ALL, split=(0.1, 0.2, 0.3, 0.7, 0))).values()) <= {
        f"cuda:{number}" for number in range(4)
    }


def test_names_decide_last(tmp_path: Path) -> None:
    graph = open_case(CASES["qwen2moe"], tmp_path).graph
    placement = Placement(ALL, places=(("ffn_.*_exps", "cpu"), ("blk.0", "cuda:1")))
    found = {
        weight.name: device
        for node, device in zip(graph.nodes, placement.of(graph), strict=True)
        for weight in node.weights.values()
    }
    assert {device for name, device in found.items() if "_exps" in name} == {"cpu"}
    assert found["blk.0.attn_q.weight"] == "cuda:1" and found["blk.1.attn_q.weight"] == "cuda:0"


def is_gpu(device: str) -> bool:
    return device != "cpu"


@pytest.mark.parametrize("name", ["mixtral", "qwen2moe"])
def test_activations_cross_once_each_way_where_experts_stay(name: str, tmp_path: Path) -> None:
    """Of each layer: the router's values and the input of the experts come down, and their sum goes up."""
    graph = rewrite(open_case(CASES[name], tmp_path).graph)
    parts = cut(graph, Placement(ALL, places=(("ffn_.*_exps", "cpu"),)).of(graph), is_gpu)
    assert [device for device, _ in parts] == ["cuda:0", "cpu"] * 3 + ["cuda:0"]
    for number, (device, part) in enumerate(parts):
        ops = {node.op for node in part.nodes}
        assert ("expert_linear" in ops) == (device == "cpu") and not (device == "cpu" and part.state)
        assert len(part.given) == (2 if device == "cpu" else min(number, 1))
        assert device != "cpu" or ops >= {"glu", "expert_combine"}


PLACES = [
    ("blk.1", "cuda:1", {"rope", "attention", "glu"}),  # a whole layer
    ("attn_(q|k|v)", "cpu", set()),  # what is stored stays where attention is
    ("attn_q", "cpu", set()),
    ("token_embd", "cpu", set()),
]


@pytest.mark.parametrize(("pattern", "device", "expected"), PLACES)
def test_nodes_without_weights_follow(pattern: str, device: str, expected: set[str], tmp_path: Path) -> None:
    graph = open_case(CASES["mixtral"], tmp_path).graph
    placement = Placement(ALL, places=((pattern, device),))
    nodes = [node for node, place in zip(graph.nodes, placement.of(graph), strict=True) if place == device]
    assert {node.op for node in nodes if not node.weights} >= expected
    assert expected or all(node.weights for node in nodes)
    if "attention" not in expected:
        assert all(node.op != "attention" for node in nodes)


def test_places_that_hold_values_do_not_hand_them_to_themselves(tmp_path: Path) -> None:
    graph = rewrite(open_case(CASES["qwen2moe"], tmp_path).graph)
    places = ["cuda:0" if i % 3 else "cpu" for i in range(len(graph.nodes))]
    parts, here, made = cut(graph, places, is_gpu), set(), set()
    for i, (device, part) in enumerate(parts):
        given, kept, held = ({value.id for value in values} for values in (part.given, part.kept, part.held))
        own = {value.id for node in part.nodes for value in node.outputs}
        read = {value.id for node in part.nodes for value in node.inputs}
        later = {value.id for other, behind in parts[i + 1 :] if other == "cpu" for value in behind.given}
        if device == "cpu":
            assert not held and given == read - own and given <= made
            made |= kept
        else:
            assert not given & here and read <= given | held | own and given <= made
            assert kept - {graph.logits.id} == own & later
            here |= given | own
            made |= kept
    assert sum(len(part.given) for device, part in parts if device != "cpu") < len(here)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"split": (-1.0, 2.0)}, "shares"), ({"split": (0.0,)}, "shares"), ({"split": (1e308, 1e308)}, "shares"),
     ({"split": ("a",)}, "shares"), ({"places": (("a", "gpu"),)}, "cuda:N"),
     ({"places": (("a(", "cpu"),)}, "regular expression")],
)  # fmt: skip
def test_what_cannot_be_is_refused(wrong: dict, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        Placement(**wrong)


def test_shares_are_of_layers_that_are_on_gpus() -> None:
    assert placement_of("all", (3, 1), ()) == Placement(ALL, (3, 1))
    for place in ((), ("ffn=cuda:1",)):
        with pytest.raises(InvalidRequest, match=r"tensor_split=\(3, 1\): .* gpu_layers puts none there"):
            placement_of(0, (3, 1), place)


@pytest.mark.parametrize("text", ["ffn", "=cpu"])
def test_a_place_needs_a_pattern_and_a_device(text: str) -> None:
    assert parse_place("a=b=cpu") == ("a=b", "cpu")
    with pytest.raises(InvalidRequest, match="PATTERN=DEVICE"):
        parse_place(text)
