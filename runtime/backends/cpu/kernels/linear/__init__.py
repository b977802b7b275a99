"""Matrix products with weights in any block format, read in place.

    weights.py   what a quantized type must say: how blocks unpack into unsigned codes, scales and biases
    basic.py k.py iq.py fp4.py   the types; floats.py: F32, F16, BF16
    packets.py   activations to int8 for few tokens; act.py: for many
    blocks.py    types with blocks of less than 256 columns, of which a row may end with some
    lanes.py     blocks of a row into the lanes of a packet; dots.py: their product; float_dots.py: of floats
    part.py      rows and parts of rows for several tokens; ahead.py: asking memory for the next
    rows.py      few tokens: the rows read once, in order; gated.py: with activation; experts.py: of chosen experts
    panel.py     rows unpacked side by side for many tokens; gemm.py: multiplied with all of them; pairs.py: of 16 bits
    brain.py     activations to bfloat16 where the CPU has tile registers; slab.py: weights; tiles.py: their product
    embed.py     rows of the embedding table to float32
"""
