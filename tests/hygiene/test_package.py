"""The wheel holds every subpackage and asset, and nothing else; the public surface is what it says."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import halfbyte
import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("formats", "runtime", "converters", "tools")


def _listed() -> list[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text.partition("packages = [")[2].partition("]")[0]
    return [line.strip().strip('",') for line in block.splitlines() if line.strip()]


def _in_tree() -> set[str]:
    folders = {path.parent.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    return {"halfbyte", *("halfbyte." + ".".join(folder.parts) for folder in folders)}


def test_every_subpackage_is_listed() -> None:
    assert len(_listed()) == len(set(_listed()))
    assert set(_listed()) == _in_tree()
    for name in _in_tree():
        assert (ROOT / Path(*name.split(".")[1:]) / "__init__.py").exists(), name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    # a copy: setuptools writes into the tree it builds, and packs what an older build left there
    tree, leave_out = folder / "tree", shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, tree, ignore=leave_out)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(tree)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    assert path.name.endswith("-py3-none-any.whl"), "one universal wheel"
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_tree(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
    files = [*sources, *(ROOT / "runtime" / "assets").iterdir(), ROOT / "py.typed"]
    assert packed == {"halfbyte/" + path.relative_to(ROOT).as_posix() for path in files}


def test_the_wheel_names_its_licence_and_its_needs(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert any(name.endswith("LICENSE") for name in names)
    (metadata,) = (wheel.read(name).decode() for name in names if name.endswith("METADATA"))
    needs = set(re.findall(r"(?m)^Requires-Dist: ([\w-]+)[^;\n]*$", metadata))
    assert needs == {
        "numpy", "numba", "gguf", "tokenizers", "sentencepiece", "jinja2", "huggingface_hub", "rich", "click",
    }  # fmt: skip
    assert "License-Expression: Apache-2.0" in metadata


def test_version_is_the_distributions() -> None:
    assert halfbyte.__version__ == importlib.metadata.version("halfbyte")


def test_every_public_name_exists() -> None:
    for name in halfbyte.__all__:
        assert getattr(halfbyte, name) is not None
    assert set(halfbyte.__all__) <= set(dir(halfbyte))
    with pytest.raises(AttributeError, match="nonsense"):
        halfbyte.nonsense  # noqa: B018
