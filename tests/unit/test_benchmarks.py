"""The pure parts of benchmarks/: what is counted, compared, written, and held against which target."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.gguf import GGMLType, GGUFFile
from halfbyte.formats.quants import decode
from halfbyte.runtime.models import build_model
from halfbyte.tools.perplexity import Estimate

from benchmarks import accuracy, batch, plots, readme, repeats, rounds, targets
from benchmarks import all as all_benchmarks
from benchmarks import memory as memory_benchmark
from benchmarks.agreement import Agreement, Parting
from benchmarks.common import Runs
from benchmarks.divergence import Divergence
from benchmarks.recipes import RECIPES, fitting
from benchmarks.report import Report, markdown_table
from benchmarks.roofline import Unit, Work, unit, work
from benchmarks.scaling import Curve, thread_counts
from benchmarks.shapes import SHAPES, shape_of
from benchmarks.synthetic import write
from benchmarks.widened import widened


@pytest.mark.parametrize(
    ("recipe", "shape"),
    [("Q4_0", "256x512x2x4x2x300"), ("Q4_K_M", "64x96x3x2x1x259"), ("F16", "96x128x1x3x3x300"), ("Q8_0", "tiny")],
)
def test_a_synthetic_model_of_any_shape_can_be_built(tmp_path: Path, recipe: str, shape: str) -> None:
    path, wanted = tmp_path / "model.gguf", shape_of(shape)
    write(path, wanted, RECIPES[recipe])
    with GGUFFile.open(path) as file:
        spec = build_model(file)
        found = work(spec.graph)
        stored = sum(t.data.nbytes for t in file.tensors.values() if t.data.ndim > 1 and t.name != "token_embd.weight")
    a_layer = 2 * wanted.d_model**2 + 2 * wanted.d_model * wanted.d_kv + 3 * wanted.d_model * wanted.d_ff
    assert (spec.vocab_size, spec.n_layer, spec.n_embd) == (wanted.vocab_size, wanted.n_layer, wanted.d_model)
    # of the last layer some products are made for tokens with logits only: the sum is what counts
    assert found.token_macs + found.output_macs == wanted.n_layer * a_layer + wanted.d_model * wanted.vocab_size
    assert found.output_macs >= wanted.d_model * wanted.vocab_size
    assert found.weight_bytes == stored


def test_a_tied_output_is_read_for_every_token(tmp_path: Path) -> None:
    from dataclasses import replace

    sizes = {}
    for tied in (False, True):
        path = tmp_path / f"{tied}.gguf"
        write(path, replace(shape_of("256x512x2x4x2x300"), tied=tied), RECIPES["Q4_0"])
        with GGUFFile.open(path) as file:
            assert ("output.weight" in file.tensors) is not tied
            sizes[tied] = work(build_model(file).graph)
    assert sizes[True] == sizes[False]


def test_work_counts_only_the_experts_that_a_token_uses() -> None:
    from halfbyte.runtime.graph.ir import Graph, Node, Rows, Value, Weight

    x, y = Value(0, "x", Rows.TOKENS, 32), Value(1, "y", Rows.TOKENS, 5, repeat=2)
    weight = Weight("experts", GGMLType.Q8_0, (7, 5, 32), np.zeros((7, 5, 34), np.uint8))
    node = Node("expert_linear", "experts", (x,), (y,), {"weight": weight})
    assert work(Graph((node,), y, ())) == Work(2 * 5 * 34, 2 * 5 * 32, 0)


def test_shapes_that_cannot_be_are_refused() -> None:
    for text in ("8b", "1x2x3", "100x256x2x4x2x300", "256x512x2x4x3x300", "256x512x2x4x2x10", "256x512x0x4x2x300"):
        with pytest.raises(ValueError, match="no shape"):
            shape_of(text)
    assert shape_of("7b") is SHAPES["7b"]


def test_rows_that_are_no_multiple_of_a_block_get_a_smaller_one() -> None:
    assert fitting(GGMLType.Q6_K, 512) is GGMLType.Q6_K
    assert fitting(GGMLType.Q6_K, 576) is GGMLType.Q8_0
    assert fitting(GGMLType.Q4_0, 576) is GGMLType.Q4_0


def test_shares_are_work_by_time_by_limit() -> None:
    one = Work(weight_bytes=500, token_macs=1000, output_macs=600)
    assert one.decode_share(20, bandwidth=20_000) == 0.5
    # 3 tokens and the output once are 3,600; at 2 tokens a second they take 1.5 s
    assert one.prompt_share(2, 3, peak=4800) == pytest.approx(3600 / 1.5 / 4800)


def test_the_unit_is_the_one_that_the_kernels_use() -> None:
    assert unit(["linear_gemm.Q4_0", "quantize"]) == Unit("int8")
    assert unit(["linear_gemm.F16"]) == Unit("float32")
    assert unit(["linear_tiles.Q4_0", "brain.fast", "quantize"]) == Unit("tiles")
    assert unit(["linear_tiles.F16", "brain.exact"]) == Unit("tiles", 3)
    assert unit(["linear_tiles.BF16", "brain.exact"]) == Unit("tiles", 2)


def test_every_target_is_a_model_that_can_be_made() -> None:
    recipes = [name.partition(":")[2] for name in targets.SPEED if name.startswith("synthetic:")]
    assert len(recipes) == 8
    assert set(recipes) <= set(RECIPES)


def _timings(theirs: bool) -> dict[str, rounds.Timing]:
    found = {rounds.OURS: rounds.Timing([200.0, 300.0], [20.0, 60.0])}
    return found | ({rounds.THEIRS: rounds.Timing([100.0, 100.0], [20.0, 20.0])} if theirs else {})


def test_ratios_are_taken_round_by_round() -> None:
    ratio = rounds.ratio(_timings(True), "prompt_tps")
    assert ratio is not None
    assert ratio.values == (2.0, 3.0)
    assert rounds.cells(_timings(True), "decode_tps") == ["40.0", "20.0", "2.00 (1.00-3.00)"]


def test_without_the_other_program_there_is_no_ratio() -> None:
    assert rounds.ratio(_timings(False), "prompt_tps") is None
    assert rounds.cells(_timings(False), "prompt_tps") == ["250.0", "-", "-"]
    assert not [key for key in rounds.as_json(_timings(False)) if key.startswith("ratio")]


def test_rounds_swap_the_order() -> None:
    pair = rounds.Pair.__new__(rounds.Pair)
    pair.engines = {"a": None, "b": None}  # type: ignore[dict-item]
    assert [[side for side, _ in pair.turns(number)] for number in (0, 1)] == [["b", "a"], ["a", "b"]]


def test_gain_is_against_the_smallest_size() -> None:
    assert batch.gain({1: Runs((10.0, 30.0)), 4: Runs((50.0, 70.0))}, 4) == 3.0


def test_growth_is_a_slope() -> None:
    assert memory_benchmark.slope([0, 100, 200, 300], [5.0, 205.0, 405.0, 605.0]) == 2.0
    assert memory_benchmark.slope([0, 100, 200], [7.0, 7.0, 7.0]) == 0.0


def test_thread_counts_go_past_the_processors() -> None:
    assert thread_counts(2) == [1, 2, 4]
    assert thread_counts(8) == [1, 2, 3, 4, 6, 8, 16]


def test_curves_keep_points_in_order() -> None:
    curve = Curve("threads", "model")
    for x, speed in (("1", 10.0), ("2", 20.0)):
        curve.add_timings(x, {rounds.OURS: rounds.Timing([speed], [speed / 10])})
    stored = curve.as_json()
    assert stored["x"] == ["1", "2"]
    assert [point["median"] for point in stored["lines"]["decode"][rounds.OURS]] == [1.0, 2.0]


def _speed(ratio: float) -> dict[str, Any]:
    machine = {
        "cpu": "CPU",
        "cores": 2,
        "kernel_level": "avx2",
        "busy_at_start": False,
        "commit": "abc",
        "date": "today",
    }
    goal = {"what": "smollm2: prompt", "measured": f"{ratio}", "wanted": "at least 6.00", "met": ratio >= 6}
    sides = {f"{what}_tps": {"median": 100.0} for what in ("prompt", "decode")}
    ratios = {f"ratio_{what}_tps": {"median": ratio} for what in ("prompt", "decode")}
    return {
        "machine": {**machine, "versions": {"llama-cpp-python": "1"}},
        "goals": [goal],
        "results": {"options": {"threads": 2}, "smollm2": {"halfbyte": sides, "llama_cpp": sides, **ratios}},
    }


def test_the_readme_marks_what_misses_its_target(tmp_path: Path) -> None:
    text = readme.numbers({"speed": _speed(2.0)}, plots=tmp_path)
    (row,) = [line for line in text.splitlines() if "smollm2" in line]
    assert "**2.00**" in row  # 6.0 is wanted of the prompt
    assert " 2.00 " in row  # and 1.7 of decode
    assert "options" not in text
    both = readme.numbers({"speed": _speed(2.0)}, [{"speed": _speed(3.0)}], tmp_path)
    assert both.index("**2.00**") < both.index("**3.00**")
    assert readme.updated(f"a\n{readme.BEGIN}\nold\n{readme.END}\nb", {"speed": _speed(2.0)}).endswith("\nb")


def test_the_readme_has_goals_by_machine(tmp_path: Path) -> None:
    def measured(cpu: str, **goals: bool) -> readme.Results:
        found = [{"what": what, "measured": f"{cpu} {what}", "wanted": "5", "met": met} for what, met in goals.items()]
        speed = _speed(2.0)
        speed["machine"] = {**speed["machine"], "cpu": cpu}
        return {"speed": speed, "depth": {"machine": {"cpu": cpu}, "goals": found}}

    text = readme.numbers(measured("one", a=True, b=False), [measured("two", a=False)], tmp_path)
    first, second = ([c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if "| depth" in line)
    assert first == ["depth", "a", "one a", "**two a**", "5"]
    assert second == ["depth", "b", "**one b**", "-", "5"]


def test_a_goal_of_several_runs_is_met_by_all_or_not(tmp_path: Path) -> None:
    rows = repeats.table([_speed(7.0), _speed(6.5)]).splitlines()
    assert rows[-1].endswith("| yes        |")
    assert "**no**" in repeats.table([_speed(7.0), _speed(5.0)])
    table = repeats.speed_table([_speed(7.0), _speed(5.0)])
    (row,) = [line for line in table.splitlines() if "smollm2" in line and "prompt" in line]
    assert "100, 100, 7.00" in row
    assert "100, 100, **5.00**" in row
    assert repeats.stored(tmp_path) == []
    assert repeats.folder(tmp_path, 1) == tmp_path


def test_plots_name_the_machine_and_say_what_they_need(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "CPU, 2 cores" in plots.footer({**_speed(1.0)["machine"], "versions": {"halfbyte": "1"}})
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit):
        plots.library()
    assert "pip install matplotlib" in capsys.readouterr().err


@pytest.mark.parametrize("installed", [True, False])
def test_all_runs_every_script_that_can_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setattr("benchmarks.peers.is_installed", lambda: installed)
    monkeypatch.setattr(sys, "argv", ["all", "--out", str(tmp_path), "--speed-runs", "2"])
    titles = [title for title, _ in all_benchmarks.commands(all_benchmarks.arguments())]
    assert titles[:3] == ["speed", "speed, run 2", "depth"]
    assert ("accuracy" in titles) is installed
    for script in all_benchmarks.SCRIPTS:
        assert (readme.ROOT / "benchmarks" / f"{script.name}.py").exists()


def test_markdown_cells_cannot_break_the_table() -> None:
    assert markdown_table(("a", "b"), [("x|y", "z")]).splitlines()[-1] == "| x\\|y | z   |"


def test_a_widened_model_has_the_same_weights(tmp_path: Path) -> None:
    write(tmp_path / "small.gguf", shape_of("64x96x1x2x1x259"), RECIPES["Q4_K_M"])
    with GGUFFile.open(tmp_path / "small.gguf") as file, GGUFFile.open(widened(tmp_path / "small.gguf")) as wide:
        assert list(wide.tensors) == list(file.tensors)
        assert wide.metadata["llama.block_count"] == file.metadata["llama.block_count"]
        for name, tensor in file.tensors.items():
            same = wide.tensors[name]
            assert same.type is GGMLType.F32
            np.testing.assert_array_equal(decode(same.data, same.type), decode(tensor.data, tensor.type))


def test_texts_are_compared_with_and_without_the_rounding_of_the_other_program(tmp_path: Path) -> None:
    def text(true_gap: float | None, our_gap: float = 0.2) -> Agreement:
        parting = None if true_gap is None else Parting(3, "a", "b", our_gap, 0.3, true_gap)
        return Agreement("Why?", "Because.", 8, parting, same_prompt_ids=True, same_api=True)

    forms, estimate = {"prompt": Divergence(4, 0.1, 0.2, 0.9)}, Estimate()
    estimate.add(np.ones(4))
    rounded, exact = [text(None), text(0.5)], [text(0.05), text(-0.5, our_gap=0.04)]
    report = Report("accuracy", "Accuracy")
    accuracy.add_to(report, [accuracy.Result("m", True, forms, forms, estimate, estimate, rounded, exact)])
    goals = {goal.what: goal for goal in report.goals if "texts" in goal.what}
    measured = [goal.measured.split()[0] for goal in goals.values()]
    # Close for the reference, close for any, and ours; beside llama.cpp as it is and without rounding.
    assert measured == ["1", "1", "0", "1", "2", "1"]
    assert [row["verdict"] for row in report.data["m"]["exact_texts"]] == ["near tie", "Halfbyte off"]
