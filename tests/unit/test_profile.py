"""The arithmetic of a profile: from stamps to times, from calls to work, from work to floors, from all that to rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.gguf import GGMLType
from halfbyte.runtime.backends.cpu.floors import Floors
from halfbyte.runtime.backends.cpu.lower import Call
from halfbyte.runtime.backends.cpu.profile import StepTimes, step_times
from halfbyte.runtime.backends.cpu.work import KV_CACHE, Work, op_of, tensor_of, work_of
from halfbyte.runtime.cache.kv import KVPool
from halfbyte.runtime.graph.ir import KVSpec, Node, Rows, Value, Weight
from halfbyte.runtime.graph.plan import Access
from halfbyte.runtime.step import Step
from halfbyte.tools.profile import NO_TENSOR, Phase, Row, phase
from halfbyte.tools.profile_view import BAR, Grid, Line, bar, by_op, by_tensor, digits, plain, write

FLOORS = Floors(read=1000.0, int8=500.0, float32=100.0)
LAYER = KVSpec(layer=3, n_head_kv=2, key_dim=8, value_dim=6)
NOTHING = Access((), ())


@pytest.fixture(scope="module")
def kv() -> KVPool:
    return KVPool([LAYER], n_pages=2)


def make_step(*positions: tuple[int, int], outputs: int = 1) -> Step:
    """Sequences of positions [start, stop)."""
    ranges = [np.arange(start, stop, dtype=np.int32) for start, stop in positions]
    places = np.concatenate(ranges)
    sequence = np.repeat(np.arange(len(ranges), dtype=np.int32), [len(r) for r in ranges])
    pages = np.zeros((len(ranges), 1), np.int32)
    return Step(np.zeros(len(places), np.int32), places, sequence, pages, np.arange(outputs, dtype=np.int32))


def weight(name: str, kind: GGMLType, *shape: int, row_bytes: int) -> Weight:
    return Weight(name, kind, shape, np.zeros((*shape[:-1], row_bytes), np.uint8))


def product(
    name: str, w: Weight, rows: Rows = Rows.TOKENS, repeat: int = 1, op: str = "linear", kernel: str = "linear_rows.X"
) -> Call:
    node = Node(op, name, (), (Value(9, name, rows, w.n_rows, repeat),), {"weight": w})
    return Call(kernel, {"w": w.data, "n": w.n_rows}, NOTHING, node)


FFN = weight("blk.4.ffn_down.weight", GGMLType.Q4_1, 7, 32, row_bytes=20)
HEAD = weight("token_embd.weight", GGMLType.Q8_0, 11, 32, row_bytes=34)
NORM = weight("blk.4.attn_norm.weight", GGMLType.F32, 32, row_bytes=128)
EXPERTS = weight("blk.4.ffn_up_exps.weight", GGMLType.F16, 5, 7, 32, row_bytes=64)


def test_stamps_become_times_that_add_up_to_the_wall() -> None:
    # thread 0 starts at 10 and ends at 40; a barrier before calls 0 and 2
    stamps = np.array([[10, 11, 14, 14, 20, 30, 39, 40], [12, 12, 13, 13, 16, 30, 34, 0]], np.float64)
    times = step_times((), np.array([True, False, True]), make_step((0, 1)), 37.0, stamps)
    assert times.busy.tolist() == [(3 + 1) / 2, (6 + 3) / 2, (9 + 4) / 2]
    waits = ((30 - 20) + (30 - 16)) / 2  # before call 2, for both calls since the barrier
    assert times.wait == pytest.approx([waits * 2 / 6.5, waits * 4.5 / 6.5, (1 + 6) / 2])
    assert times.start == pytest.approx(37 - 30 + (1 + 2) / 2)  # outside the walk, and before the first call
    assert times.start + times.busy.sum() + times.wait.sum() == pytest.approx(times.wall)


def test_a_walk_without_calls() -> None:
    times = step_times((), np.zeros(0, bool), make_step((0, 1)), 5.0, np.array([[1.0, 3.0]]))
    assert (times.start, len(times.busy), len(times.wait)) == (5.0, 0, 0)


@pytest.mark.parametrize(
    ("work", "seconds", "bound"),
    [
        (Work(), 0.0, ""),
        (Work(n_bytes=300), 0.3, "read"),
        (Work(macs=100, n_bytes=300, numbers="int8"), 0.3, "read"),
        (Work(macs=200, n_bytes=300, numbers="int8"), 0.4, "int8"),
        (Work(macs=200, n_bytes=300, numbers="float"), 2.0, "float"),
    ],
)
def test_the_floor_is_the_longer_of_reading_and_multiplying(work: Work, seconds: float, bound: str) -> None:
    assert FLOORS.seconds(work) == pytest.approx(seconds)
    assert FLOORS.bound(work) == bound


@pytest.mark.parametrize(
    ("tiles", "numbers", "bound", "seconds"),
    [
        (400, "int8", "int8", 2.0),
        (800, "int8", "tiles", 1.25),
        (400, "half", "tiles", 2.5),
        (800, "float", "float", 10.0),
    ],
)
def test_tiles_are_a_limit_where_they_are_faster(tiles: float, numbers: str, bound: str, seconds: float) -> None:
    floors, work = replace(FLOORS, tiles=tiles), Work(1000, 300, numbers)
    assert (floors.bound(work), floors.seconds(work)) == (bound, pytest.approx(seconds))


def test_pairs_are_a_limit_of_half_precision() -> None:
    floors = replace(FLOORS, pairs=200)
    assert (floors.bound(Work(1000, 300, "half")), floors.seconds(Work(1000, 300, "half"))) == ("pairs", 5.0)
    assert floors.bound(Work(1000, 300, "int8")) == "int8"


def test_work_of_products(kv: KVPool) -> None:
    step = make_step((5, 9), (0, 2), outputs=3)
    assert work_of(product("blk.4.ffn_down", FFN), step, kv) == Work(6 * 7 * 32, 7 * 20, "int8")
    assert work_of(product("output", HEAD, Rows.OUTPUTS), step, kv) == Work(3 * 11 * 32, 11 * 34, "int8")
    none = make_step((0, 2), outputs=0)
    assert work_of(product("output", HEAD, Rows.OUTPUTS), none, kv) == Work(0, 0, "int8")
    assert work_of(product("token_embd", HEAD, op="embed"), step, kv) == Work(n_bytes=6 * 34)


@pytest.mark.parametrize(("tokens", "experts"), [(1, 2), (2, 4), (3, 5), (9, 5)])
def test_work_of_experts(tokens: int, experts: int, kv: KVPool) -> None:
    call = product("blk.4.ffn_up_exps", EXPERTS, repeat=2, op="expert_linear")
    assert work_of(call, make_step((0, tokens)), kv) == Work(tokens * 2 * 7 * 32, experts * 7 * 64, "half")


def test_a_fused_node_is_divided_among_its_calls(kv: KVPool) -> None:
    up = weight("blk.4.ffn_up.weight", GGMLType.F32, 3, 32, row_bytes=128)
    node = Node("linear_glu", "blk.4.glu", (), (Value(1, "x", Rows.TOKENS, 3),), {"gate": FFN, "up": up})
    first, second = (Call("linear_rows.X", {"w": w.data}, NOTHING, node) for w in (FFN, up))
    last = Call("glu.silu", {"gate": 0}, NOTHING, node)
    step = make_step((0, 2))
    assert [work_of(c, step, kv).n_bytes for c in (first, second, last)] == [7 * 20, 3 * 128, 0]
    assert [tensor_of(c) for c in (first, second, last)] == ["ffn_down", "ffn_up", ""]
    assert [op_of(c) for c in (first, second, last)] == ["linear_glu", "linear_glu", "glu"]
    both = Call("linear_glu.X.silu", {"gate": FFN.data, "up": up.data}, NOTHING, node)
    assert (op_of(both), tensor_of(both)) == ("linear_glu", "ffn_down+ffn_up")
    assert work_of(both, step, kv) == Work(2 * (7 + 3) * 32, 7 * 20 + 3 * 128, "int8")


def attention(window: int) -> tuple[Call, Call]:
    attrs = {"n_head": 4, "n_head_kv": 2, "key_dim": 8, "value_dim": 6, "window": window, "causal": True, "layer": 3}
    node = Node("attention", "blk.3.attention", (), (Value(1, "x", Rows.TOKENS, 24),), {}, attrs)
    return Call("attention_decode.2.f16", {"q": 0}, NOTHING, node), Call("kv_store.f16", {"k": 0}, NOTHING, node)


@pytest.mark.parametrize("window", [0, 1, 4, 9])
def test_work_of_attention(window: int, kv: KVPool) -> None:
    """Against the definition: who sees whom."""
    seen: dict[int, set[int]] = {0: set(), 1: set()}
    pairs = 0
    for sequence, positions in ((0, range(5, 9)), (1, range(3))):
        for position in positions:
            visible = {p for p in range(position + 1) if not window or p > position - window}
            seen[sequence] |= visible
            pairs += len(visible)
    reads, stores = attention(window)
    cached = len(seen[0]) + len(seen[1])
    step = make_step((5, 9), (0, 3))
    assert work_of(reads, step, kv) == Work(pairs * 4 * (8 + 6), cached * 2 * (8 + 6) * 2, "half")
    assert work_of(stores, step, kv) == Work()


def test_names() -> None:
    reads, stores = attention(0)
    assert (op_of(reads), tensor_of(reads)) == ("attention", KV_CACHE)
    assert (op_of(stores), tensor_of(stores)) == ("kv_store", "")
    head = product("output", HEAD, Rows.OUTPUTS)
    assert (op_of(head), tensor_of(head)) == ("linear", "output (tied)")
    assert tensor_of(product("token_embd", HEAD, op="embed")) == "token_embd"
    assert tensor_of(product("output", weight("output.weight", GGMLType.F16, 2, 3, row_bytes=6))) == "output"
    part = FFN.rows(2, 5)
    assert tensor_of(product(part.name, part)) == "ffn_down[2:5]"
    quantize = Call("quantize", {"x": 0}, NOTHING, head.node)
    assert (op_of(quantize), tensor_of(quantize)) == ("quantize", "")
    weights = {"weight": NORM, "bias": weight("blk.4.attn_norm.bias", GGMLType.F32, 32, row_bytes=128)}
    norm = Call("layer_norm", {"x": 0}, NOTHING, Node("layer_norm", "n", (), (), weights))
    assert (op_of(norm), tensor_of(norm)) == ("layer_norm", "attn_norm")


def timed(step: Step, *calls: tuple[Call, float, float], start: float) -> StepTimes:
    busy, wait = (np.array([call[i] for call in calls]) for i in (1, 2))
    return StepTimes(tuple(c[0] for c in calls), step, busy, wait, start, start + float(busy.sum() + wait.sum()))


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}


@pytest.fixture
def prompt(kv: KVPool) -> Phase:
    """Two steps; of the two kernels for the logits the second does nothing in the first step."""
    rows, gemm = (product("output", HEAD, Rows.OUTPUTS, kernel=k) for k in ("linear_rows.X", "linear_gemm.X"))
    gemm = Call(gemm.kernel, gemm.args, NOTHING, rows.node)
    down, (reads, stores) = product("blk.4.ffn_down", FFN), attention(0)
    first = timed(
        make_step((0, 4)), (stores, 0.5, 0.25), (reads, 8.0, 0.5), (down, 16.0, 1.0), (rows, 4.0, 0.0),
        (gemm, 0.125, 0.0), start=0.5,
    )  # fmt: skip
    second = timed(make_step((4, 6)), (down, 8.0, 3.0), start=0.25)
    return phase("prompt", [first, second], 50.0, FLOORS, kv)


def test_rows_of_a_prompt_add_up(prompt: Phase) -> None:
    assert (prompt.tokens, prompt.steps, prompt.wall, prompt.start) == (6, 2, 50.0, 0.75)
    assert prompt.python == pytest.approx(50 - 30.875 - 11.25)
    for rows in (prompt.ops, prompt.tensors, prompt.calls):
        assert sum(row.seconds for row in rows) + prompt.start + prompt.python == pytest.approx(prompt.wall)
        assert sum(row.floor for row in rows) == pytest.approx(prompt.floor)
    assert prompt.inside + prompt.wait + prompt.start + prompt.python == pytest.approx(prompt.wall)
    assert prompt.wait == 4.75


def test_rows_of_a_prompt(prompt: Phase) -> None:
    assert [row.name for row in prompt.ops] == ["linear", "attention", "kv_store"], "longest first"
    assert [row.name for row in prompt.tensors] == ["ffn_down", KV_CACHE, "output (tied)", NO_TENSOR]
    tensors = by_name(prompt.tensors)
    down, output = tensors["ffn_down"], tensors["output (tied)"]
    assert (down.calls, down.seconds, down.wait, down.types) == (2, 28.0, 4.0, {"Q4_1"})
    assert (down.macs, down.n_bytes) == (6 * 7 * 32, 2 * 7 * 20)
    assert (down.bound, down.floor) == ("int8", pytest.approx(6 * 7 * 32 / 500))
    assert (output.calls, output.macs, output.n_bytes) == (2, 11 * 32, 11 * 34), "the idle kernel has no work"
    assert by_name(prompt.calls)["output: linear_gemm.X"].macs == 0
    assert tensors[NO_TENSOR].floor == 0 and tensors[NO_TENSOR].bound == ""


def test_decode_is_the_mean_token(kv: KVPool) -> None:
    down = product("blk.4.ffn_down", FFN)
    steps = [timed(make_step((i, i + 1)), (down, 1.0 + i, 0.5), start=0.25) for i in range(4)]
    result = phase("decode", steps, 14.0, FLOORS, kv)
    assert (result.tokens, result.steps, result.wall, result.start) == (4, 4, 3.5, 0.25)
    (row,) = result.ops
    assert (row.calls, row.seconds, row.wait, row.macs) == (1, 3.0, 0.5, 7 * 32)
    assert result.python == pytest.approx((14 - 4 * 3.25) / 4)


def test_what_is_printed_adds_up(prompt: Phase) -> None:
    ops, tensors = by_op(prompt), by_tensor(prompt)
    time = ops.heads.index("ms")
    shown = [float(line.cells[time]) for line in (*ops.rows, *ops.totals[:-1])]
    assert sum(shown) == pytest.approx(float(ops.totals[-1].cells[time]), abs=1e-6)
    assert float(ops.totals[-1].cells[time]) == 50_000
    assert tensors.totals[0].cells[tensors.heads.index("ms")] == f"{(50 - prompt.python - prompt.start) * 1e3:.1f}"
    (down,) = (line.cells for line in tensors.rows if line.cells[0] == "ffn_down")
    assert down[-1] == f"{100 * 6 * 7 * 32 / 500 / 28:5.1f} int8"
    lines = plain(tensors)
    assert len({line.find("Q") for line in lines if "Q" in line}) == 1, "columns are aligned"
    assert all(line.isascii() and len(line) < 80 for line in lines), "it fits a plain terminal"


RULE = "-" * 15


def test_cells_are_safe_to_print() -> None:
    grid = Grid(["op", "n"], [Line(["\x1b[2Jevil", "1"])], [Line(["sum", "22"])])
    assert plain(grid) == ["op            n", RULE, "\\x1b[2Jevil   1", RULE, "sum          22"]


@pytest.mark.parametrize(
    ("number", "text"), [(0.0, "0.00"), (0.123, "0.12"), (9.5, "9.50"), (12.34, "12.3"), (123.4, "123"), (4321, "4321")]
)
def test_digits(number: float, text: str) -> None:
    assert digits(number) == text


@pytest.mark.parametrize(("part", "text"), [(0.0, ""), (1.0, "█" * BAR), (0.5, "█" * (BAR // 2)), (1 / 80, "▏")])
def test_bars(part: float, text: str) -> None:
    assert bar(part) == text


def test_json_has_what_the_tables_have(prompt: Phase) -> None:
    data: dict[str, Any] = prompt.as_dict()
    assert data["wall_seconds"] == pytest.approx(
        data["call_seconds"] + data["wait_seconds"] + data["start_seconds"] + data["python_seconds"]
    )
    (down,) = (row for row in data["tensors"] if row["name"] == "ffn_down")
    assert down == {
        "name": "ffn_down", "types": ["Q4_1"], "calls": 2, "seconds": 28.0, "wait_seconds": 4.0, "macs": 6 * 7 * 32,
        "bytes": 280, "floor_seconds": pytest.approx(6 * 7 * 32 / 500), "floor": "int8",
    }  # fmt: skip


def test_a_terminal_gets_rules_and_bars(
    prompt: Phase, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("halfbyte.tools.console.is_terminal", lambda _: True)
    monkeypatch.setenv("TERM", "dumb")
    for columns, has_bars in (("120", True), ("80", False), ("60", False)):
        monkeypatch.setenv("COLUMNS", columns)
        wide = Line(["[bold]sum", *["1234567"] * 8])
        write(replace(by_tensor(prompt), totals=[wide]))
        shown = capsys.readouterr().out
        assert ("█" * BAR in shown) is has_bars
        assert "[bold]sum" in shown, "names are no markup"
        assert "…" not in shown and shown.count("1234567") == 8, "nothing is cut off"
        assert all(row.name in shown for row in prompt.tensors)
