"""`halfbyte doctor`: everything about this machine that a bug report needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from .. import console


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def command(as_json: bool) -> None:
    """Show versions, processor features and the kernels chosen for them, threads, memory, folders and models."""
    from ..diagnosis import diagnose

    report = diagnose()
    if as_json:
        console.write_json(report, indent=2)
    else:
        console.write_table(list(_rows("", report)))


def _rows(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Nested values as "outer inner" rows; short lists on one line."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _rows(f"{name} {key}".strip(), item)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for item in value:
            yield from _rows(f"{name} {item.get('name', '')}".strip(), {k: v for k, v in item.items() if k != "name"})
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value)) or "none"
    else:
        yield name, _text(name, value)


def _text(name: str, value: Any) -> str:
    if value is None:
        return "not found"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    is_bytes = isinstance(value, int) and any(word in name for word in ("bytes", "memory", "contents"))
    return f"{value / 1e6:,.1f} MB" if is_bytes else str(value)
