"""The engine: many requests, one thread, one executor.

Reading order: sequence.py (state), scheduler.py (policy), runner.py (arrays), request.py and engine.py (threads),
generate.py (logits to text), generation.py (what the caller holds). Sampling is in sampling.py and stop.py.
"""
