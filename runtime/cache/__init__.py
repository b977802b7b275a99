"""The state of sequences: which parts there are (policy) and where their bytes lie (storage).

protocol.py is what the scheduler expects of any kind of state; blocks.py implements it for pages of keys and values,
and prefix.py is the tree by which it finds pages again; kv.py holds the bytes.
"""
