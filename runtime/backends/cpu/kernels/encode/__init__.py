"""Encoders: float32 weights to blocks of a quantized type, byte for byte what `formats/quants` makes of them.

    lanes.py       sixteen groups of weights side by side, one in each lane
    search.py      how scales are found; the twin of `formats/quants/search.py`
    basic.py ...   a class for each type; `table.py` has them all
    best.py        makes encoders that search further of these; the twin of `formats/quants/best.py`
    kernel.py      the kernel `encode.TYPE`, with `.weighted` for an importance of the columns, `.best` for the search

A sum of float32 depends on its order, and files are to be equal. So nothing is added across lanes: each lane goes
through its group from the first weight to the last, as ggml does, and one instruction serves sixteen groups.
"""
