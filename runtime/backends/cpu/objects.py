"""Compiled kernels as object files: our own cache, and loading them without Numba.

A kernel is one small relocatable object that refers to nothing but itself and libc, so it is cached as plain bytes with
a checksum (never pickle) in a per-user directory of mode 0700, and linked into the process by LLVM in about a
millisecond. The directory is keyed by everything the machine code depends on: the sources of this package and of the
block layouts, whose tables kernels hold; the versions of numba, llvmlite and gguf; and the CPU target. A file that is
truncated, damaged, or that another user may have written is treated as absent and compiled again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import stat
import sys
import tempfile
from pathlib import Path

from ....formats.errors import HalfbyteError
from ...settings import bounds_checked, home
from .features import target

_MAGIC = b"halfbyte kernel 1\n"


class KernelError(HalfbyteError):
    """A kernel could not be compiled or loaded on this machine."""

    exit_code = 5


def pack(symbol: str, code: bytes) -> bytes:
    """The cache file of a kernel: magic, checksum, symbol line, object code."""
    body = symbol.encode() + b"\n" + code
    return _MAGIC + hashlib.sha256(body).digest() + body


def unpack(data: bytes) -> tuple[str, bytes] | None:
    """Symbol and object code, or None when the bytes are not an intact kernel file."""
    head = len(_MAGIC) + 32
    body = data[head:]
    if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : head] != hashlib.sha256(body).digest():
        return None
    symbol, _, code = body.partition(b"\n")
    return symbol.decode(), code


@functools.cache
def fingerprint() -> str:
    """Hash of everything the machine code depends on."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    root = here.parents[2]
    kinds = root / "formats" / "gguf" / "kinds.py"  # has levels of codes
    for folder in (here, root / "formats" / "quants", kinds):
        for source in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]:
            digest.update(source.relative_to(root).as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    machine = target()
    for fact in (
        *(importlib.metadata.version(package) for package in ("numba", "llvmlite", "gguf")),
        sys.platform,
        machine.cpu,
        machine.feature_string,
        str(bounds_checked()),
    ):
        digest.update(fact.encode() + b"\0")
    return digest.hexdigest()[:20]


@functools.cache
def kernel_dir() -> Path:
    """Where kernels of this machine and version are cached.

    A directory that cannot be written, or that other users can write, is never used: kernels are code. A private
    temporary directory takes its place, and lives as long as the process.
    """
    wanted = home() / "kernels" / fingerprint()
    try:
        wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(wanted.stat()):
            _take_back(wanted)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted
    except OSError:
        return _temporary_dir()


def are_kept() -> bool:
    """Whether compiled kernels outlive this process."""
    return kernel_dir().parent == home() / "kernels"


def _is_own(info: os.stat_result) -> bool:
    # Windows has no such numbers, and a user's folders are private there
    return sys.platform == "win32" or info.st_uid == os.getuid()


def _is_private(info: os.stat_result) -> bool:
    """Is it certain that no other user wrote it?"""
    return _is_own(info) and (sys.platform == "win32" or not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _take_back(directory: Path) -> None:
    """Close a directory to other users and remove what they may have left there. OSError where that is impossible."""
    if _is_own(directory.stat()):
        directory.chmod(0o700)
    if not _is_private(directory.stat()):  # another user owns it, or its file system knows no modes
        raise PermissionError(f"{directory}: other users can write there")
    for file in directory.iterdir():
        file.unlink()


def _temporary_dir() -> Path:
    keep = tempfile.TemporaryDirectory(prefix="halfbyte-kernels-", ignore_cleanup_errors=True)
    _alive.append(keep)
    return Path(keep.name)


_alive: list[object] = []  # temporary directories and LLVM engines live as long as the process


def read(name: str) -> tuple[str, bytes] | None:
    """Symbol and code of a cached kernel, or None when there is no intact one that only this user can have written."""
    try:
        with open(kernel_dir() / f"{name}.o", "rb") as file:
            return unpack(file.read()) if _is_private(os.fstat(file.fileno())) else None
    except OSError:
        return None


def write(directory: Path, name: str, data: bytes) -> None:
    """Put a kernel file in place at once: a reader sees the old file, the new one, or none."""
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, directory / f"{name}.o")
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


@functools.cache
def _machine():  # type: ignore[no-untyped-def]
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(jit=True)


_addresses: dict[str, int] = {}


def load(name: str) -> int:
    """Address of a cached kernel's entry point, linked into this process once. KernelError when it is not cached."""
    if name not in _addresses:
        cached = read(name)
        if cached is None:
            raise KernelError(f"kernel {name} is not compiled")
        _addresses[name] = link(*cached)
    return _addresses[name]


def link(symbol: str, code: bytes) -> int:
    """Address of the entry point of machine code that `unpack` gave, linked into this process."""
    import llvmlite.binding as llvm

    # One engine per object: symbols of different kernels never meet.
    module = llvm.parse_assembly(f'target triple = "{llvm.get_process_triple()}"')
    engine = llvm.create_mcjit_compiler(module, _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _alive.append(engine)
    address = int(engine.get_function_address(symbol))
    if not address:
        raise KernelError(f"the compiled kernel has no symbol {symbol}")
    return address
