"""Frozen programs compile in their own process: on several threads, beside others that use Numba."""

from __future__ import annotations

import subprocess
import sys

CODE = """if True:
    import threading
    import numba
    from halfbyte.runtime.backends.cpu.jit import compile_kernel

    @numba.njit
    def twice(x):
        return 2 * x

    made, answers = {}, []
    names = ["take_rows", "add", "scale", "softcap"]
    threads = [threading.Thread(target=lambda n=n: made.update({n: compile_kernel(n)})) for n in names]
    threads += [threading.Thread(target=lambda: answers.append(twice(21)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == sorted(names), sorted(made)
    assert answers == [42] and twice(1.5) == 3.0
    """


def test_kernels_are_compiled_on_several_threads() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", CODE], check=True, timeout=120)
