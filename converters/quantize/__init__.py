"""Quantize GGUF models: the types of llama.cpp's recipes, the bytes of its encoders, in a stream of constant memory.

    recipes.py       the recipes, as one table
    architecture.py  what types depend on beside them: numbers of the model, and rules of its architecture
    importance.py    what errors of each column cost, from an imatrix file
    prune.py         leaving layers out
    plan.py          what each tensor of a model becomes, and why
    searches.py      how its codes are found
    checks.py        what can be wrong with a plan
    files.py         into which files the tensors go
    run.py           reading, encoding and writing
    summary.py       what was done, and what was asked for in vain
"""

from __future__ import annotations

from .importance import Importance, read_importance
from .plan import Choices, Planned, as_type, plan, recipe_named
from .recipes import RECIPES
from .run import Inspection, quantize
from .searches import SEARCHES, with_search
from .summary import Summary

__all__ = [
    "RECIPES", "SEARCHES", "Choices", "Importance", "Inspection", "Planned", "Summary", "as_type", "plan", "quantize",
    "read_importance", "recipe_named", "with_search",
]  # fmt: skip
