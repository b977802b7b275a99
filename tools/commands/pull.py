"""`halfbyte pull`: download a model and verify it."""

from __future__ import annotations

import click

from ...runtime import hub
from .. import console
from ..progress import ProgressLine


@click.command()
@click.argument("name", required=False)
@click.option("--list", "show_list", is_flag=True, help="Show the names that can be pulled.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def command(name: str | None, show_list: bool, as_json: bool) -> None:
    """Download a model and print its path.

    NAME is one of --list, or hf:OWNER/REPO/FILE.gguf for a file on the Hugging Face hub. A model that is already
    there is verified again. An interrupted download goes on where it stopped.
    """
    if show_list:
        _show_list(as_json)
        return
    if name is None:
        raise click.UsageError("which model? `halfbyte pull --list` shows the names", click.get_current_context())
    with ProgressLine() as progress:
        path = hub.resolve(name, progress=progress, check=True)
    entry = next((entry for entry in hub.ENTRIES if entry.name == name), None)
    if as_json:
        licence = entry.licence if entry else None
        console.write_json({"name": name, "path": str(path), "size": path.stat().st_size, "licence": licence})
        return
    if entry:
        console.note(f"{entry.summary}. Licence: {entry.licence}")
    console.say(str(path))


def _show_list(as_json: bool) -> None:
    models = [
        {
            "name": entry.name,
            "size": entry.size or (path.stat().st_size if path else 0),
            "licence": entry.licence,
            "summary": entry.summary,
            "path": str(path) if path else None,
        }
        for entry, path in ((entry, hub.cached_path(entry)) for entry in hub.ENTRIES)
    ]
    if as_json:
        console.write_json(models)
        return
    rows = [("NAME", "SIZE", "HERE", "ABOUT")]
    for model in models:
        size = f"{int(str(model['size'])) / 1e6:.1f} MB"
        rows.append((str(model["name"]), size, "yes" if model["path"] else "no", str(model["summary"])))
    console.write_table(rows)
