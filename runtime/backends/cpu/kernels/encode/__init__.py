"""Encoders: float32 weights to blocks of a quantized type, byte for byte what `formats/quants` makes of them.

    lanes.py       sixteen groups of weights side by side, one in each lane
    search.py      how scales are found; the twin of `formats/quants/search.py`
    basic.py ...   a class for each type; `table.py` has them all
    kernel.py      the kernel `encode.TYPE`, and `encode.TYPE.weighted` with an importance of the columns

A sum of float32 depends on its order, and files are to be equal. So nothing is added across lanes: each lane goes
through its group from the first weight to the last, as ggml does, and one instruction serves sixteen groups.
"""
