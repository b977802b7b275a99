"""How many instructions a warp issues for 1,024 weights of a row: `python -m tests.cuda.count_instructions Q4_0 NF4`.

For kernels of one token on compute capability 9.0, without a GPU; NVIDIA's assembler must be on the PATH. Prints for
each type the instructions, those with integers, the bytes, and the GB/s that this allows an H100: 132 multiprocessors
at 1.98 GHz issue four instructions a cycle, or two with integers. Loads and waiting are not counted in.

An instruction has 16 bytes. Its lowest 9 bits say what it does, the next 3 where its operands come from.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator

from halfbyte.formats.gguf.types import GGMLType
from halfbyte.runtime.backends.cuda.kernels import linear

from .kernels_to_ptx import assembled, kernels, to_ptx

CAPABILITY, WEIGHTS = (9, 0), 1024
ISSUED, WITH_INTEGERS = (132 * 1.98 * rate for rate in (4, 2))  # instructions of warps, 10^9 a second
BRANCH, PRODUCTS = 0x147, 0x26  # BRA; IDP is dp4a
# SEL ISETP IADD3 LEA LOP3 PRMT IMNMX SHF IDP VIADD
INTEGERS = frozenset({0x07, 0x0C, 0x10, 0x11, 0x12, 0x16, 0x17, 0x19, PRODUCTS, 0x36})


def instructions(cubin: bytes) -> list[int]:
    """Those of the one kernel of an ELF file: its section that begins with .text."""
    (offset,) = struct.unpack_from("<Q", cubin, 40)
    size, count, names = struct.unpack_from("<HHH", cubin, 58)
    sections = [struct.unpack_from("<IIQQQQ", cubin, offset + size * i) for i in range(count)]
    for name, _, _, _, at, length in sections:
        if cubin.startswith(b".text.", sections[names][4] + name):
            words = struct.iter_unpack("<QQ", cubin[at : at + length])
            return [low | high << 64 for low, high in words]
    raise SystemExit("there is no code in what the assembler made")


def loops(code: list[int]) -> Iterator[list[int]]:
    """What branches backwards go over. A branch says how far it goes from the next instruction on, in four bytes."""
    for i, one in enumerate(code):
        if one & 0x1FF == BRANCH:
            far = (one >> 34 & (1 << 48) - 1) << 8 | one >> 16 & 0xFF
            first = i + 1 + (far - (far >> 55 << 56)) * 4 // 16
            if 0 <= first <= i:
                yield [inside & 0x1FF for inside in code[first : i + 1]]


def main() -> int:
    for name, kernel, arguments in kernels(CAPABILITY):
        kind, *of = name.split(".")
        if kind != "rows" or of[0] not in sys.argv[1:] or of[1] != "1":
            continue
        code = instructions(assembled(to_ptx(kernel, arguments, CAPABILITY), CAPABILITY)[1])
        products = sum(one & 0x1FF == PRODUCTS for one in code)
        inner = min((loop for loop in loops(code) if loop.count(PRODUCTS) == products), key=len)
        all_, integers = len(inner) / linear.ROWS, sum(one in INTEGERS for one in inner) / linear.ROWS
        n_bytes = GGMLType[of[0]].row_bytes(WEIGHTS)
        most = n_bytes * min(ISSUED / all_, WITH_INTEGERS / integers)
        print(f"{of[0]:8}{all_:8.1f}{integers:8.1f}{n_bytes:8,}{most:10,.0f} GB/s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
