"""Measurements behind the numbers Halfbyte states. Not part of the package; see README.md."""

import importlib.util
import sys

if importlib.util.find_spec("halfbyte") is None:
    sys.stderr.write("error: halfbyte is not installed in this Python; run: pip install .\n")
    raise SystemExit(2)
