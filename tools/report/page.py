"""The page: one HTML file that needs nothing else, no script, no network."""

from __future__ import annotations

from ... import __version__
from .data import Report, Variant
from .numbers import decibels, megabytes, number, percent
from .pictures import Pictures
from .stylesheet import STYLE
from .tables import escape, kinds, overview, tensors
from .tradeoff import points

# Even if a string got past the escaping, it could neither run nor reach anything.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render(report: Report, pictures: Pictures) -> str:
    """The whole file."""
    parts = [_head(report), _at_a_glance(report, pictures), _where(report, pictures), _close_up(report, pictures)]
    title = f"What other weights cost {escape(report.first, 60)}"
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n{''.join(parts)}{_tables(report)}{_foot()}</body>\n</html>\n"
    )


def _head(report: Report) -> str:
    how_many = "One changed model" if len(report.variants) == 1 else f"{len(report.variants)} changed models"
    facts = f"{how_many} against {megabytes(report.first_bytes)} of the first."
    if report.has_text:
        text = report.variants[0].about["text"]
        facts += (
            f" Predictions are those of {text['tokens']:,} tokens of {escape(report.text or 'a text', 60)}, in "
            f"{text['windows']:,} windows of {text['context']:,}; perplexity of the first: "
            f"{number(text['ppl_first'], 4)}."
        )
    else:
        facts += " Without a text: only the weights were compared."
    name = f'<span class="name">{escape(report.first, 80)}</span>'
    return f'<header><h1>What other weights cost<br>{name}</h1>\n<p class="note">{facts}</p></header>\n'


def _at_a_glance(report: Report, pictures: Pictures) -> str:
    picture = f"<figure>{pictures.tradeoff.svg()}</figure>" if pictures.tradeoff else ""
    _, missing = points(report)
    not_drawn = ", ".join(f"{escape(p.label)} ({number(p.cost)})" for p in missing)
    note = f'<p class="note">Not in the picture: {not_drawn}.</p>' if missing else ""
    return (
        f"<section><h2>At a glance</h2>\n{overview(report)}\n"
        f'<div class="beside"><div>{picture}{note}</div>{_meanings(report)}</div></section>\n'
    )


_WEIGHTS_MEAN = {
    "Relative RMSE": "Root of the mean square of the errors of all weights, divided by that of the weights.",
}
_TEXTS_MEAN = {
    "KL divergence": "How far the probabilities of the next token are from those of the first model; 0: the same.",
    "Perplexity, ln ratio": "Of the text that comes; the logarithm of the ratio is the loss in nats a token.",
    "Same top token": "How often both find the same token likeliest.",
    "RMS Δp": "By how much the probability of the token that comes is off.",
    "±": "One standard error. Definitions are those of llama-perplexity: the second half of each window is scored.",
}
_NO_TEXT_MEANS = {
    "Predictions": "What an error of weights does to them depends on the model: compare with a --text to see it.",
}


def _meanings(report: Report) -> str:
    words = _WEIGHTS_MEAN | (_TEXTS_MEAN if report.has_text else _NO_TEXT_MEANS)
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{meaning}</dd>" for name, meaning in words.items()) + "</dl>"


def _where(report: Report, pictures: Pictures) -> str:
    if not pictures.heatmaps:
        return "<section><h2>Where the errors are</h2>\n<p>Nowhere: no weight changed.</p></section>\n"
    figures = "".join(f"<figure>{picture.svg()}</figure>\n" for picture in pictures.heatmaps)
    left_out = f" {pictures.left_out:,} tensors have no room here." if pictures.left_out else ""
    return (
        "<section><h2>Where the errors are</h2>\n<p>Relative RMSE of each tensor, layer by kind. The colours are the "
        f"same for all models; what did not change is empty, × is not a number.{left_out}</p>\n"
        f'<div class="pictures two">{figures}</div></section>\n'
    )


def _close_up(report: Report, pictures: Pictures) -> str:
    if report.tensor is None:
        return ""
    rows = []
    for variant, group in zip(report.variants, pictures.closeups, strict=True):
        figures = "".join(f"<figure>{picture.svg()}</figure>\n" for picture in group)
        rows.append(
            f'<div class="together"><h3>{escape(variant.label)}</h3>\n'
            f'<p class="note">{_facts(variant, report.tensor)}</p>\n<div class="pictures">{figures}</div></div>\n'
        )
    return (
        f'<section><h2>One tensor close up: <span class="name">{escape(report.tensor, 80)}</span></h2>\n'
        "<p>Each step of a staircase is a level of the type; it is as wide as the weights that became it (pale: the "
        "last hundredth on both sides). Weights are in units of the scale of their block, in which the largest level "
        f"is 1 or −1. The axis of errors is the same for all models.</p>\n{''.join(rows)}</section>\n"
    )


def _facts(variant: Variant, tensor: str) -> str:
    row, sample = variant.errors_of(tensor), variant.sample
    if row is None or sample is None:
        return ""
    bits = 8 * sample.type.block_bytes / sample.type.block_size
    facts = [
        f"{escape(row['before'])} to {escape(row['after'])}, {number(bits)} bits a weight",
        f"relative RMSE {number(row['relative_rmse'])}",
        f"SQNR {decibels(row['sqnr_db'])}",
        f"largest error {number(row['max_error'])}",
        f"{percent(row['clipped'], 2)} clipped",
    ]
    bad = len(sample.before) - len(sample.finite()[0])
    if bad:
        facts.append(f'<span class="warn">{bad:,} of {len(sample.before):,} weights are not numbers</span>')
    if len(sample.before) < sample.n_elements:
        facts.append(f"pictures show {len(sample.before):,} of {sample.n_elements:,} weights")
    if sample.levels is None and sample.type.block_size > 1:
        facts.append("weights of this type have no levels of their own")
    return "; ".join(facts) + "."


def _tables(report: Report) -> str:
    by_kind = "".join(f"<h3>{escape(variant.label)}</h3>\n{kinds(variant)}" for variant in report.variants)
    return (
        f"<section><h2>All numbers</h2>\n<details><summary>Errors by kind of tensor</summary>{by_kind}</details>\n"
        f"<details><summary>Relative RMSE of every tensor</summary>{tensors(report)}</details></section>\n"
    )


def _foot() -> str:
    return f"<footer>Made by <code>halfbyte compare</code>, Halfbyte {escape(__version__)}.</footer>\n"
