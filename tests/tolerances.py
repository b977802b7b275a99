"""Every tolerance of the kernel tests, with the argument for its size. Kernels are compared with float64 arithmetic."""

from __future__ import annotations

# A float32 sum of n products in 16 lanes errs by at most (n / 16 + 5) * 2^-24 of the sum of absolute products: 768
# columns give 3.2e-6. Relative to that sum.
FLOAT32_SUM = 4e-6

# The same products by NumPy once more: its BLAS sums otherwise for other numbers of rows, and where arrays begin at
# another place in memory (seen on Zen 5). Relative to the largest result.
BLAS_SUM = 2e-6

# Products of panels: their corrections are rounded to int16, by 2^-14 of the largest one of a row and 2^-16 of the
# largest one of a token, and the largest is a few times the mean one. Relative to the sum of absolute products.
# Measured: 5.2e-5 for Q2_K, at most 1.8e-5 for types without super-blocks.
INT16_TERMS = 1e-4

# NF4 and FP4: levels as integers of eight bits. Relative to the norm of normal weights.
INT8_LEVELS = 5e-3

# int8 codes of 32 normal values: their largest is about 2.1 sigma, so the rounding error has a standard deviation of
# 2.1 / 127 / sqrt(12) = 0.0048 sigma; half as much again for small samples. Relative to the norm.
INT8_ACTIVATIONS = 7.5e-3

# One or two roundings of float32 (2^-24 each), and the rounding of the expected value. Relative to the element.
ELEMENT = 2.5e-7

# exp within 2 units in the last place (2.4e-7), a division and a product on top. Relative to the element, or to 1 where
# an activation passes through zero by cancellation.
ACTIVATION = 6e-7

# erf by Abramowitz and Stegun 7.1.26: absolute error 1.5e-7 of a factor between 0 and 2, times x / 2. Relative to |x|.
ERF = 3e-7

# Norms: a float32 sum of squares of up to 200 columns in 16 lanes (17 roundings at most, usually 4), root, two
# products. Relative to the largest element of a row.
NORM = 1e-6

# The plain loop of layer_norm: LLVM's order of summation, and x - mean, whose absolute error is that of the mean.
LAYER_NORM = 2e-6

# Sine and cosine: 1e-7 from the polynomials, and products and sums of two terms. Relative to the length of the pair.
ROPE = 4e-7

# Attention: scores are float32 sums (2e-6 of |q| * |k| * scale, at most 20 here), which moves a probability by that
# much; probabilities err by ACTIVATION; the weighted sum of values is rescaled at each page. Relative to the largest
# value.
ATTENTION = 2e-5

# Rounding differences of the last elements of an activation (two or three roundings of float32), in a few layers of
# tiny random models. Relative to the largest logit.
GELU_LOGITS = 1e-4

# The same where the activation is then rounded to int8: a code next to the border moves by one step, a 254th of the
# range of its group. Measured 1.4e-3.
GELU_INT8_LOGITS = 5e-3

# Routing: probabilities err by ACTIVATION and by the sum over experts.
PROBABILITY = 1e-6

# Keys and values as float16 (2^-11 each) in a few layers of tiny random models. Relative to the largest logit.
HALF_KV = 2e-3

# int8 activations (INT8_ACTIVATIONS) at every product of three random layers. Relative to the largest logit.
INT8_LOGITS = 5e-2

# Weights and activations rounded to bfloat16: 8 significant bits, so each by at most 2^-8 and by a third of that on the
# average; over a row errors of both signs meet, and half of the worst case is allowed. Relative to the sum of absolute
# products. In the norm the errors of a product of normal values average out: measured 0.0023.
BRAIN = 4.1e-3
BRAIN_NORM = 2.8e-3

# Prompts with half-precision weights on AVX-512 BF16 (linear/pairs.py). Activations are rounded to bfloat16, F16
# weights too, each by at most 2^-8 (8 significant bits). Relative to the sum of absolute products. In the norm of
# products of normal values: measured 0.00166 for BF16 weights, which lose nothing, and 0.0024 for F16.
BRAIN_PAIRS = {"BF16": 4.0e-3, "F16": 8.0e-3}
BRAIN_PAIRS_NORM = {"BF16": 2.0e-3, "F16": BRAIN_NORM}

# Split into two bfloat16: 2^-17 of each, and the product of the low parts is left out (2^-18); sums of 800 columns in
# float32, in the order of the columns.
BRAIN_PAIR = 3e-5

# Attention whose weights and values are rounded to bfloat16 (2^-8 each at most, and of both signs). Relative to the
# largest value.
BRAIN_ATTENTION = 4e-3
