"""One file per command, imported when the command is used.

The table is what `halfbyte --help` shows: it must not import the commands, which import NumPy and Numba.
Each module defines `command`, a click command.
"""

from __future__ import annotations

# name -> line in the help; the module is tools/commands/<name>.py; the order is the order of the help
COMMANDS: dict[str, str] = {
    "run": "Answer one prompt, from an argument or a pipe.",
    "chat": "Talk with a model.",
    "pull": "Download a model by name.",
    "inspect": "Show what is in a model file.",
    "convert": "Make a model file of a Hugging Face folder.",
    "quantize": "Write a model with smaller weights.",
    "imatrix": "Measure which columns of a model's matrices matter.",
    "compare": "Show what other weights cost a model.",
    "hash": "Print the hashes of a model's weights.",
    "verify": "Compare a model with such hashes.",
    "embed": "Write vectors of texts.",
    "tokenize": "Show how a model splits text.",
    "perplexity": "Measure how well a model predicts a text.",
    "bench": "Measure tokens per second.",
    "warmup": "Compile what a model needs, once.",
    "doctor": "Show versions, CPU features, folders.",
}
