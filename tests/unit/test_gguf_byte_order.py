"""Big-endian files: which fields of a block are numbers, written down a second time, and ggml's own converter."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.scripts import gguf_convert_endian as peer
from halfbyte.formats.gguf import GGMLType, GGUFFile, GGUFWriter
from halfbyte.formats.gguf.tensors import swap_order
from halfbyte.formats.quants import CODECS, decode

from tests.builders_quants import random_blocks

# Fields as ggml's C code reads and writes them.
FIELDS = {
    GGMLType.F32: "u4",
    GGMLType.F16: "u2",
    GGMLType.BF16: "u2",
    GGMLType.Q4_0: "u2, 16u1",
    GGMLType.Q4_1: "u2, u2, 16u1",
    GGMLType.Q5_0: "u2, u4, 16u1",
    GGMLType.Q5_1: "u2, u2, u4, 16u1",
    GGMLType.Q8_0: "u2, 32u1",
    GGMLType.Q2_K: "16u1, 64u1, u2, u2",
    GGMLType.Q3_K: "32u1, 64u1, 12u1, u2",
    GGMLType.Q4_K: "u2, u2, 12u1, 128u1",
    GGMLType.Q5_K: "u2, u2, 12u1, 32u1, 128u1",
    GGMLType.Q6_K: "128u1, 64u1, 16u1, u2",
    GGMLType.IQ4_NL: "u2, 16u1",
    GGMLType.IQ4_XS: "u2, u2, 4u1, 128u1",
    GGMLType.IQ2_XXS: "u2" + 8 * ", 4u1, u4",
    GGMLType.IQ2_XS: "u2, 32u2, 8u1",
    GGMLType.IQ2_S: "u2, 32u1, 32u1, 8u1, 8u1",
    GGMLType.IQ3_XXS: "u2, 64u1, 8u4",
    GGMLType.IQ3_S: "u2, 64u1, 8u1, 32u1, 4u1",
    GGMLType.IQ1_S: "u2, 32u1, 8u2",
    GGMLType.IQ1_M: "32u1, 16u1, 4u2",
    GGMLType.MXFP4: "u1, 16u1",
    GGMLType.NVFP4: "4u1, 32u1",
    GGMLType.TQ1_0: "48u1, 4u1, u2",
    GGMLType.TQ2_0: "64u1, u2",
    GGMLType.Q1_0: "u2, 16u1",
    GGMLType.Q2_0: "u2, 16u1",
    GGMLType.Q8_1: "u2, u2, 32u1",
    GGMLType.Q8_K: "u4, 256u1, 16u2",
}


def test_every_type_with_a_codec_is_here() -> None:
    assert set(FIELDS) == {type_ for type_ in CODECS if type_.on_disk}


@pytest.mark.parametrize("type_", FIELDS, ids=lambda t: t.name)
def test_little_to_big_and_back(type_: GGMLType, tmp_path: Path) -> None:
    fields = np.dtype(FIELDS[type_])
    shape = (3, 2 * type_.block_size)
    little = random_blocks(type_, shape, np.random.default_rng(int(type_)))
    blocks = little.reshape(-1, type_.block_bytes).copy().view(fields.newbyteorder("<"))
    big = blocks.astype(fields.newbyteorder(">")).tobytes()
    writer = GGUFWriter(tmp_path / "big.gguf", byte_order=">")
    writer.add_tensor("t", shape, type_)
    with writer.open():
        writer.write_tensor("t", little)
    assert big in (tmp_path / "big.gguf").read_bytes()
    with GGUFFile.open(tmp_path / "big.gguf", use_mmap=False) as file:
        assert file.byte_order == ">"
        data = file.tensors["t"].data
    np.testing.assert_array_equal(data, little)
    np.testing.assert_array_equal(decode(data, type_), decode(little, type_))


@pytest.mark.parametrize("peer_type", peer.byteswap_tensors, ids=lambda t: t.name)
def test_the_converter_of_the_gguf_package_agrees(peer_type: GGMLQuantizationType) -> None:
    type_ = GGMLType(int(peer_type))
    block = np.arange(type_.block_bytes, dtype=np.uint8)
    swapped = block.copy()
    peer.byteswap_tensors[peer_type](SimpleNamespace(data=swapped), 0)
    assert block[swap_order(type_, "t")].tolist() == swapped.tolist()
