"""`halfbyte inspect`: the header of a model file, for people and for programs."""

from __future__ import annotations

from typing import Any

import click

from ...formats.gguf import GGUFFile
from ...runtime import hub
from .. import console
from ..describe import describe, describe_metadata, describe_tensors
from ..escape import one_line
from ..progress import ProgressLine

MAX_CELL = 88  # characters of a metadata value in the table


@click.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
@click.option("--tensors", "with_tensors", is_flag=True, help="List every tensor as well.")
def command(file: str, as_json: bool, with_tensors: bool) -> None:
    """Show what is in a GGUF file without reading its weights.

    FILE is a path, any shard of a split model, or a name that `pull` knows. Characters that could control the terminal
    are shown as escapes.
    """
    with ProgressLine() as progress:
        path = hub.resolve(file, progress=progress)
    with GGUFFile.open(path) as gguf:
        about = describe(gguf)
        metadata = describe_metadata(gguf.metadata)
        tensors = describe_tensors(gguf.tensors.values()) if with_tensors else None
    if as_json:
        extra = {} if tensors is None else {"tensor_list": tensors}
        console.write_json({**about, "metadata": {row.pop("key"): row for row in metadata}, **extra}, indent=2)
        return
    console.write_table(_overview(about))
    for title, key in (("Bits by tensor group", "groups"), ("Tensor types", "types")):
        if about[key]:
            console.say(f"\n{title}")
            console.write_table(_groups(about[key]), indent="  ")
    console.say("\nMetadata")
    console.write_table([(row["key"], row["type"], _cell(row)) for row in metadata] or [("(none)", "")], indent="  ")
    if tensors:
        console.say("\nTensors")
        rows = [(t["name"], t["type"], " x ".join(map(str, t["shape"])), f"{t['bytes']:,} bytes") for t in tensors]
        console.write_table(rows, indent="  ")


def _overview(about: dict[str, Any]) -> list[tuple[str, str]]:
    bits = f", {about['bits_per_weight']:.2f} bits per weight" if about["bits_per_weight"] else ""
    split = about["split"]
    rows = [
        ("File", about["path"]),
        ("Kind", about["kind"]),
        ("Architecture", about["architecture"]),
        ("Name", about["name"]),
        ("Licence", about["licence"]),
        ("Size", f"{about['size']:,} bytes in {len(split['files']) if split else 1} file(s)"),
        ("Parameters", f"{about['parameters']:,} in {about['tensors']} tensors{bits}"),
        *((key.replace("_", " ").capitalize(), _plain(value)) for key, value in about["shape"].items()),
        *_bitsandbytes(about["bitsandbytes"] or {}),
        ("Rope", _pairs(about["rope"])),
        ("Tokenizer", _pairs(about["tokenizer"] or {})),
        *(
            ("Chat template", f"{name}: {about['length']:,} characters, sha256 {about['sha256']}")
            for name, about in about["chat_templates"].items()
        ),
        ("Split", f"{split['count']} files" if split else None),
        ("Format", f"GGUF {about['gguf_version']}, {about['byte_order']} endian, alignment {about['alignment']}"),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def _bitsandbytes(about: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("Stored as bytes", f"{count} tensors of kind {kind}, which other programs list and do not run")
        for kind, count in about.get("kinds", {}).items()
    ]
    rows += [
        ("Reversible", f"{count} tensors of Q8_0 made of {name}, which become four bits again when they are loaded")
        for name, count in about.get("reversible", {}).items()
    ]
    if count := about.get("int8"):
        rows.append(("LLM.int8", f"{count} tensors of Q8_0 with one scale for each row"))
    return rows


def _groups(groups: dict[str, dict[str, Any]]) -> list[list[str]]:
    rows = []
    for name, row in groups.items():
        bits = f"{row['bits_per_weight']:.2f} bits" if row["bits_per_weight"] is not None else "-"
        size = f"{row['tensor_bytes'] / 1e6:,.1f} MB"
        types = " ".join(type_ for type_ in row["types"] if type_ != name)
        rows.append([name, f"{row['tensors']} tensors", f"{row['parameters']:,}", size, bits, types])
    return rows


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in values.items() if value is not None)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)


def _cell(row: dict[str, Any]) -> str:
    value = row["value"]
    return "..." if value is None else one_line(_plain(value), MAX_CELL)
