"""Rules of the house that a reader relies on, checked on the source itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("formats", "runtime", "converters", "tools")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))

# room -> rooms it may import
MAY_IMPORT = {
    "formats": {"formats"},
    "runtime": {"formats", "runtime"},
    "converters": {"formats", "runtime", "converters"},
    "tools": set(ROOMS),
}
# inside runtime: package -> packages of runtime it may not import
MAY_NOT_IMPORT = {
    "ops": {"models", "backends", "engine"},
    "graph": {"models", "backends", "engine", "cache"},
    "models": {"backends", "engine", "cache"},
    "backends": {"models", "engine", "tokenize", "chat"},
    "cache": {"backends", "engine", "models"},
    "tokenize": {"graph", "ops", "models", "backends", "engine", "cache"},
}

CUDA = ROOT / "runtime" / "backends" / "cuda"


def _module(path: Path) -> tuple[str, ...]:
    return path.relative_to(ROOT).with_suffix("").parts


def _imports(path: Path) -> Iterator[tuple[str, ...]]:
    """Modules imported, as paths from the package root; other packages as their name."""
    package = _module(path)[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield (*base, *(node.module or "").split("."))


def test_there_is_source() -> None:
    assert len(SOURCES) > 100


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_rooms(path: Path) -> None:
    room, *inner = _module(path)
    for target in _imports(path):
        assert target[0] != "halfbyte", "rooms import each other relatively"
        assert target[0] != "tests"
        if target[0] in ROOMS:
            assert target[0] in MAY_IMPORT[room], f"{room} may not import {target}"
        if room == "runtime" and target[0] == "runtime" and len(target) > 1:
            assert target[1] not in MAY_NOT_IMPORT.get(inner[0], set()), f"runtime/{inner[0]} may not import {target}"


def test_one_file_imports_the_cuda_package() -> None:
    """By its name; everybody else gets it from there."""
    naming = [path for path in SOURCES if re.search(r"numba[._]cuda", path.read_text(encoding="utf-8"))]
    code = [path for path in naming if re.search(r'"numba[._]cuda', path.read_text(encoding="utf-8"))]
    assert code == [CUDA / "package.py"]
    assert all("numba_cuda" not in target[0] for path in SOURCES for target in _imports(path))


def test_numba_is_asked_in_the_compiler_only() -> None:
    """Nothing that a warm process imports imports numba; `njit` itself is in one file."""
    cpu = ROOT / "runtime" / "backends" / "cpu"
    for path in SOURCES:
        names = {target[0] for target in _imports(path)}
        inside = path.is_relative_to(cpu / "kernels") or path.is_relative_to(cpu / "simd") or path == cpu / "jit.py"
        assert "numba" not in names or inside, path
        if path != cpu / "jit.py" and not path.is_relative_to(CUDA):
            assert not re.search(r"\bn?jit\(|@n?jit\b", path.read_text(encoding="utf-8")), path


def test_the_environment_is_read_in_one_file() -> None:
    for path in SOURCES:
        if path != ROOT / "runtime" / "settings.py":
            assert not re.search(r"os\.(environ|getenv)", path.read_text(encoding="utf-8")), path


def test_libraries_do_not_print() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "eval", "exec"), (path, node.lineno)


def test_readers_do_not_check_with_assert() -> None:
    """`python -O` removes asserts; a file's numbers are checked with exceptions."""
    for path in SOURCES:
        if _module(path)[:2] == ("formats", "gguf"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            assert not [(path, node.lineno) for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def test_files_are_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    long = {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > 450}
    assert not long
    assert sum(n <= 300 for n in lengths.values()) >= 0.95 * len(lengths), "most files are under 300 lines"


def test_only_commands_that_exist_are_recommended() -> None:
    commands = {path.stem for path in (ROOT / "tools" / "commands").glob("[!_]*.py")}
    for path in (*SOURCES, ROOT / "__init__.py", *PAGES):
        named = re.findall(r"(?:`|^|\$ |&& |\| )halfbyte ([a-z]\w*)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(named) <= commands, path


def test_documents_install_from_the_folder() -> None:
    """There is no package on PyPI yet."""
    for page in PAGES:
        assert not re.search(r"pip install +(-\S+ +)*halfbyte", page.read_text(encoding="utf-8")), page


PAGES = sorted([*ROOT.glob("*.md"), *(page for room in (*ROOMS, "docs") for page in (ROOT / room).rglob("*.md"))])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_paths_in_documents_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:formats|runtime|converters|tools|tests|docs|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name
    for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (page.parent / link).exists(), link
