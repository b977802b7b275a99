"""Kernels of the CUDA backend, a file for each kind of op.

Values are float32 [rows, cols], flat; a kernel gets the number of rows that the step has. All loops go over what a
block or warp takes in turn, so that any grid is right: one block a row on a GPU, and one for everything in Numba's
simulator, where a thread costs more than its work.
"""
