"""`halfbyte compare`: what other weights cost a model."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...formats.errors import ModelFileError
from ...formats.gguf import GGUFFile
from ...runtime import hub
from .. import console
from ..options import LoadChoices, open_model, window_options
from ..progress import ProgressLine
from .perplexity import DEFAULT_CONTEXT, read_text

if TYPE_CHECKING:
    from ...runtime.model import Model


@click.command()
@click.argument("first")
@click.argument("changed", nargs=-1, required=True)
@click.option("--text", "text_file", type=click.Path(path_type=Path), help="UTF-8 text that both have to predict.")
@click.option("--chunks", type=click.IntRange(1), help="Stop after this many windows of the text.")
@click.option("--tensors", "with_tensors", is_flag=True, help="List every tensor as well.")
@click.option("--report", "page", type=click.Path(path_type=Path), help="Write a page with pictures, one HTML file.")
@click.option("--png", "folder", type=click.Path(path_type=Path), help="Write the pictures of the report here.")
@click.option("--tensor", metavar="NAME", help="The tensor that pictures show close up (default: the worst).")
@window_options
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def command(
    first: str,
    changed: Sequence[str],
    text_file: Path | None,
    chunks: int | None,
    with_tensors: bool,
    page: Path | None,
    folder: Path | None,
    tensor: str | None,
    loading: LoadChoices,
    as_json: bool,
) -> None:
    """Compare the weights of models with those of the FIRST, of which they were made, and what they predict.

    Without --text only the files are read. With it, all models are run over the text, in windows of --context tokens
    (default 512) of which the second half is scored, as llama-perplexity does it. --report and --png need matplotlib.
    """
    if text_file is None and (chunks or loading.context):
        raise click.UsageError("--chunks and --context are about a --text", click.get_current_context())
    wants_pictures = page is not None or folder is not None
    if tensor is not None and not wants_pictures:
        raise click.UsageError("--tensor is about the pictures of --report or --png", click.get_current_context())
    text = None if text_file is None else read_text(text_file)
    files = [_resolved(name) for name in (first, *changed)] if wants_pictures else []
    if wants_pictures:
        _check_targets(page, folder, [*files, *([text_file] if text_file else [])])
    found = [_tensors(first, name) for name in changed]
    if wants_pictures:
        tensor = _chosen(found, tensor)
    if text is not None:
        choices = replace(loading, context=loading.context or DEFAULT_CONTEXT)
        with open_model(first, choices) as model:
            for name, about in zip(changed, found, strict=True):
                about["text"] = _text(model, name, text, chunks, choices)
    if as_json:
        console.write_json({"first": first, "changed": found})
    else:
        for about in found:
            _show(about, with_tensors)
        if text is not None:
            _show_texts(found)
    if wants_pictures:
        models = [*zip((first, *changed), files, strict=True)]
        _write_report(models, found, tensor, text_file, page, folder)


def _resolved(name: str) -> Path:
    with ProgressLine() as progress:
        return hub.resolve(name, progress=progress)


def _check_targets(page: Path | None, folder: Path | None, sources: Sequence[Path]) -> None:
    """What would be in the way at the end, before a long run begins."""
    from ..report import check_library
    from ..report.files import check_folder, check_page

    check_library()
    read = [path for source in sources for path in _all_files(source)]
    if page is not None:
        check_page(page, read)
    if folder is not None:
        check_folder(folder, read)


def _all_files(path: Path) -> Sequence[Path]:
    """All shards of a model; a text is itself."""
    try:
        with GGUFFile.open(path) as file:
            return file.paths
    except ModelFileError:
        return [path]


def _chosen(found: Sequence[dict[str, Any]], tensor: str | None) -> str | None:
    from ..report import choose_tensor

    return choose_tensor(found, tensor)


def _write_report(
    models: Sequence[tuple[str, Path]], found: Sequence[dict[str, Any]], tensor: str | None, text_file: Path | None,
    page: Path | None, folder: Path | None,
) -> None:  # fmt: skip
    from ..report import build, draw, render
    from ..report.files import make_folder, write

    about = build(models[0], models[1:], found, tensor, text_file.name if text_file else None)
    pictures = draw(about)
    if folder is not None:
        make_folder(folder)
        for picture in pictures:
            write(folder / f"{picture.name}.png", picture.png())
    if page is not None:
        write(page, render(about, pictures).encode("utf-8"))
    for path in filter(None, (page, folder)):
        console.note(f"wrote {path}")


def _tensors(first: str, changed: str) -> dict[str, Any]:
    from ..compare import by_kind, tensor_costs

    with ProgressLine() as progress, contextlib.ExitStack() as stack:
        one, two = (
            stack.enter_context(GGUFFile.open(hub.resolve(name, progress=progress))) for name in (first, changed)
        )
        costs = []
        for number, cost in enumerate(tensor_costs(one, two), 1):
            costs.append(cost)
            progress("comparing tensors", number, len(two.tensors))
    kinds = {
        kind: {"types": sorted(types), "bytes": n_bytes, **_numbers(errors)}
        for kind, (errors, types, n_bytes) in by_kind(costs).items()
    }
    rows = [
        {"name": c.name, "before": c.before, "after": c.after, "bytes": c.n_bytes, **_numbers(c.errors)} for c in costs
    ]
    return {"model": changed, "all": kinds.pop("", {}), "kinds": kinds, "tensors": rows}


def _numbers(errors: Any) -> dict[str, float]:
    return {
        "weights": errors.weights,
        "relative_rmse": errors.relative_rmse,
        "sqnr_db": errors.sqnr,
        "cosine": errors.cosine,
        "max_error": errors.largest,
        "clipped": errors.clipped_share,
    }


def _text(one: Model, changed: str, text: str, chunks: int | None, choices: LoadChoices) -> dict[str, Any]:
    from ..compare import TextCost
    from ..perplexity import check_length, cut_windows

    window, cost = choices.context or DEFAULT_CONTEXT, TextCost()
    with open_model(changed, choices) as two, ProgressLine() as progress:
        ids = one.tokenizer.encode(text)
        count = min(check_length(len(ids), window), chunks or len(ids))
        bos = one.tokenizer.bos_id if one.tokenizer.add_bos else None
        for number, part in zip(range(1, count + 1), cut_windows(ids, window, bos), strict=False):
            cost.add(one.logits(part), two.logits(part), part)
            progress("comparing predictions", number, count)
    return {**cost.summary(), "windows": count, "context": window}


def _show(about: dict[str, Any], with_tensors: bool) -> None:
    console.say(f"{about['model']}: errors of weights")
    heads = ("REL. RMSE", "SQNR", "COSINE", "MAX ERROR", "CLIPPED")
    rows = [("KIND", "TYPES", "MB", *heads)]
    kinds = {kind: row for kind, row in about["kinds"].items() if row["relative_rmse"] != 0}
    for kind, row in [*sorted(kinds.items(), key=lambda item: -item[1]["relative_rmse"]), ("all", about["all"])]:
        rows.append((kind, " ".join(row["types"]), f"{row['bytes'] / 1e6:.1f}", *_cells(row)))
    console.write_table(rows, indent="  ")
    if with_tensors:
        console.say()
        listed = [(t["name"], f"{t['before']} -> {t['after']}", *_cells(t)) for t in about["tensors"]]
        console.write_table([("TENSOR", "TYPE", *heads), *listed], indent="  ")
    console.say()


def _cells(row: dict[str, float]) -> tuple[str, ...]:
    return (
        f"{row['relative_rmse']:.5f}", f"{row['sqnr_db']:.1f} dB", f"{row['cosine']:.6f}", f"{row['max_error']:.3g}",
        f"{100 * row['clipped']:.2f} %",
    )  # fmt: skip


def _show_texts(found: Sequence[dict[str, Any]]) -> None:
    text = found[0]["text"]
    console.say(f"Predictions for {text['tokens']:,} tokens in {text['windows']} windows of {text['context']}")
    rows = [("MODEL", "MB", "PERPLEXITY", "OF FIRST", "LN RATIO", "MEAN KL", "99 % KL", "MAX KL", "SAME TOP", "RMS DP")]
    for about in found:
        t = about["text"]
        rows.append((
            Path(about["model"]).name,
            f"{about['all']['bytes'] / 1e6:.1f}",
            _with_error(t, "ppl_changed", 4),
            _with_error(t, "ppl_first", 4),
            _with_error(t, "log_ppl_ratio", 5),
            f"{t['kl_mean']:.5f} +- {t['kl_error']:.5f}",
            f"{t['kl_99']:.5f}",
            f"{t['kl_max']:.4f}",
            f"{100 * t['same_top']:.2f} +- {100 * t['same_top_error']:.2f} %",
            f"{100 * t['rms_dp']:.3f} +- {100 * t['rms_dp_error']:.3f} %",
        ))
    console.write_table(rows, indent="  ")


def _with_error(row: dict[str, float], name: str, digits: int) -> str:
    return f"{row[name]:.{digits}f} +- {row[f'{name}_error']:.{digits}f}"
