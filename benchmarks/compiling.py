"""The child of benchmarks.startup that compiles kernels one by one: one JSON line, seconds by name.

python -m benchmarks.compiling KERNEL ...
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    begin = time.perf_counter()
    from halfbyte.runtime.backends.cpu.jit import compile_kernel

    found = {"import": time.perf_counter() - begin}
    for name in sys.argv[1:]:
        begin = time.perf_counter()
        compile_kernel(name)
        found[name] = time.perf_counter() - begin
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
