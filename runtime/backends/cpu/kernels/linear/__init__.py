"""Matrix products with weights in any block format, read in place.

    weights.py   what a quantized type must say: how blocks unpack into unsigned codes, scales and biases
    basic.py k.py iq.py fp4.py   the types; floats.py: F32, F16, BF16
    act.py       activations to int8
    rows.py      few tokens: one fused unpack-and-dot per row, the rows read once, in order
    panel.py     rows unpacked side by side for many tokens; gemm.py: multiplied with all of them
    embed.py     rows of the embedding table to float32
"""
