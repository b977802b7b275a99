"""Matrix products with weights in any block format, read in place.

    weights.py   what a quantized type must say: how blocks unpack into unsigned codes, scales and biases
    basic.py k.py iq.py fp4.py   the types; floats.py: F32, F16, BF16
    lanes.py     activations to int8 for few tokens; act.py: for many
    rows.py      few tokens: one fused unpack-and-dot per row, the rows read once, in order; gated.py: with activation
    panel.py     rows unpacked side by side for many tokens; gemm.py: multiplied with all of them
    brain.py     activations to bfloat16 where the CPU has tile registers; slab.py: weights; tiles.py: their product
    embed.py     rows of the embedding table to float32
"""
