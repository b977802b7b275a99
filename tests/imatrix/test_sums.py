"""The sums: added, merged, written and read, also as `quantize` reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from halfbyte.converters.imatrix import Sums
from halfbyte.converters.quantize import read_importance
from halfbyte.formats.errors import InvalidRequest, ModelFileError


def some(seed: int = 1) -> tuple[Sums, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    x = {"a.weight": rng.standard_normal((7, 5)), "b_exps.weight": rng.standard_normal((4, 3))}
    x = {name: v.astype(np.float32) for name, v in x.items()}
    sums = Sums([f"text{seed}"], chunks=2, chunk_size=64)
    sums.add("a.weight", x["a.weight"][:3])
    sums.add("a.weight", x["a.weight"][3:])
    sums.add("b_exps.weight", x["b_exps.weight"], expert=1, experts=3)
    return sums, x


def test_sums_and_files(tmp_path: Path) -> None:
    sums, x = some()
    np.testing.assert_allclose(sums.squares["a.weight"], (x["a.weight"].astype(float) ** 2).sum(axis=0)[None])
    assert sums.counts["b_exps.weight"].tolist() == [0, 4, 0]
    sums.write(tmp_path / "a.gguf")
    again = Sums.read(tmp_path / "a.gguf")
    assert (again.datasets, again.chunks, again.chunk_size) == (["text1"], 2, 64)
    for name in sums.squares:
        np.testing.assert_allclose(again.squares[name], sums.squares[name], rtol=1e-6)
        np.testing.assert_array_equal(again.counts[name], sums.counts[name])
    seen = read_importance(tmp_path / "a.gguf")
    assert (seen.dataset, seen.chunks) == ("text1", 2)
    np.testing.assert_allclose(seen.columns["a.weight"], (x["a.weight"] ** 2).mean(axis=0)[None], rtol=1e-5)
    experts = seen.columns["b_exps.weight"]
    np.testing.assert_allclose(experts[1], (x["b_exps.weight"] ** 2).mean(axis=0), rtol=1e-5)
    assert (experts[[0, 2]] == 1).all()


def test_merging_is_as_if_all_had_been_one() -> None:
    (one, _), (two, _) = some(1), some(2)
    expected = one.squares["a.weight"] + two.squares["a.weight"]
    two.add("c.weight", np.ones((2, 4), np.float32))
    one.merge(two)
    np.testing.assert_array_equal(one.squares["a.weight"], expected)
    assert one.counts["c.weight"] == [2] and one.counts["a.weight"] == [14]
    assert (one.datasets, one.chunks) == (["text1", "text2"], 4)


def test_the_older_form(tmp_path: Path) -> None:
    sums, _ = some()
    sums.add("unasked_exps.weight", np.ones((0, 3), np.float32), experts=2)
    sums.write(tmp_path / "a.dat")
    seen, old = sums.means(), Sums.read(tmp_path / "a.dat", rows_per_call=64)
    assert set(old.squares) == {"a.weight", "b_exps.weight"}  # llama.cpp leaves out what it knows nothing of
    for name, means in old.means().items():
        np.testing.assert_allclose(means.reshape(seen[name].shape), seen[name], rtol=1e-6)
        assert old.counts[name] == [64]  # one call, which is a window
    assert (old.datasets, old.chunks) == (["text1"], 2)
    for one, other in ((old, sums), (sums, old)):  # one count for all experts, and one for each
        merged = Sums()
        merged.merge(one)
        merged.merge(other)
        np.testing.assert_array_equal(merged.counts["b_exps.weight"], [64, 68, 64])
        assert merged.squares["b_exps.weight"].shape == (3, 3)


def test_what_models_cannot_be_multiplied_with() -> None:
    for value in (np.nan, np.inf, 1e30):
        with pytest.raises(ModelFileError, match=r"'a.weight' is multiplied with NaN or infinity"):
            Sums().add("a.weight", np.float32([[1, value]]))


def test_experts_that_were_never_asked() -> None:
    assert some()[0].unused() == {"b_exps.weight": 2}


def test_other_models_and_other_files(tmp_path: Path) -> None:
    one, other = some()[0], Sums()
    other.add("a.weight", np.ones((2, 6), np.float32))
    with pytest.raises(InvalidRequest, match=r"'a.weight' is \(1, 5\).*\(1, 6\)"):
        one.merge(other)
    import halfbyte

    model = Path(halfbyte.__file__).parent / "runtime/assets/stories260k.gguf"
    with pytest.raises(ModelFileError, match="not an importance matrix"):
        Sums.read(model)
