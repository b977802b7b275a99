"""The CUDA backend: the same graphs on an NVIDIA GPU, through numba.cuda. docs/cuda.md tells how a step runs.

    package.py       the one import of Numba's CUDA target, and which package serves
    simt.py          what kernels need of a GPU that Numba has no word for: instructions.py, and simulated.py for tests
    weights/         for every block type a function that unpacks 32 weights
    kernels/         for every op a kernel
    lower*.py        from graph nodes to launches
    cublas.py        products of prompts of many tokens by cuBLAS, where nvmath-python is there
    allocate.py      device memory, for real or only counted; memory.py says what lies in it, shared.py what parts share
    recorded.py      launches of generated tokens as one CUDA graph
    warm_up.py       steps that launch every kernel once, while a model is loaded
    executor.py      runs steps

Importing this package imports nothing: machines without a GPU need no CUDA package.
"""
