"""The one file that knows how Numba is asked: kernels say what they are, not how they are compiled.

A kernel is a Python function `(args, step, tid, nth)`: two records (see `args.py`), the number of the calling thread
and the number of threads. It does its share of the work and returns; it never raises, never allocates, never holds the
GIL. `compile_kernel` turns it into a relocatable object file. There is no dispatcher, no wrapper and no reference
counting, and LLVM sees a kernel once: one costs a tenth of a second to one and a half to compile, and its object needs
nothing of Numba when it is loaded later.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import numba
from numba.core import compiler, types
from numba.core.codegen import AOTCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.cpu_options import FastMathOptions
from numba.core.errors import NumbaExperimentalFeatureWarning
from numba.core.registry import cpu_target

from ...settings import bounds_checked, forced_cpu
from .args import STEP, args_of
from .features import target
from .objects import pack

if forced_cpu()[0] is not None:  # Numba would keep this machine's features, or none
    numba.config.CPU_FEATURES = target().feature_string

# Never nnan or ninf: logits and masks may hold -inf.
FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}

# Functions called by kernels: scalars, vectors and addresses in and out, always inlined.
_NO_WRAPPERS = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # Python never calls them: 12 % less to compile
_DEVICE = {"nogil": True, "error_model": "numpy", "fastmath": FASTMATH, **_NO_WRAPPERS}
device = numba.njit(**_DEVICE, forceinline=True)

# A large function that is called in one place: merged into its caller beforehand, and so not compiled twice.
inlined = numba.njit(**_DEVICE, inline="always")

_SYMBOL = "halfbyte_kernel"  # every object has one entry point, and an engine of its own

Kernel = Callable[[Any, Any, int, int], None]
_kernels: dict[str, Callable[[str], Kernel]] = {}  # name before the dot -> function of the part behind it
_exact: set[str] = set()  # families whose arithmetic is to be done as it is written


def kernel(name: str) -> Callable[[Kernel], Kernel]:
    """Register a kernel under `name`."""

    def register(function: Kernel) -> Kernel:
        _kernels[name] = lambda _variant: function
        return function

    return register


def kernel_family(
    name: str, *, exact: bool = False
) -> Callable[[Callable[[str], Kernel]], Callable[[str], Kernel]]:
    """Register a factory: it makes the kernel `name.variant` from the variant (a tensor type, an activation).

    `exact`: no sum is rearranged and no product merged with one; nor may what it calls do so where floats matter.
    """

    def register(factory: Callable[[str], Kernel]) -> Callable[[str], Kernel]:
        _kernels[name] = factory
        if exact:
            _exact.add(name)
        return factory

    return register


def _flags(name: str) -> compiler.Flags:
    flags = compiler.Flags()
    flags.nrt = False
    flags.error_model = "numpy"
    flags.fastmath = FastMathOptions(False if name.partition(".")[0] in _exact else FASTMATH)
    flags.boundscheck = bounds_checked()
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    return flags


def compile_kernel(name: str) -> bytes:
    """Compile the kernel `family` or `family.variant` for `features.target()`; returns its cache file."""
    module, machine = _compile(name)
    return pack(_SYMBOL, machine.emit_object(module))


def assembly(name: str) -> str:
    """Assembly of a kernel, for the tests that look for an instruction."""
    module, machine = _compile(name)
    return str(machine.emit_assembly(module))


class _Part(AOTCodeLibrary):  # type: ignore[misc]
    """A function that becomes part of a kernel: not optimized before that, and never run by itself."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass


def _linked(library: _Part, _fndesc: Any, _env: Any) -> Any:
    """Put into a library what it calls. Numba tells functions apart by the result, a built-in one that nobody calls."""
    library.finalize()
    return [library].append


@contextmanager
def _only_parts() -> Iterator[None]:
    """Numba makes every function that a kernel calls ready to run by itself. In here it does not do that work twice.

    It is told so for the whole process: to be entered with Numba's lock, which keeps other threads from compiling.
    """
    context, codegen = cpu_target.target_context, cpu_target.target_context.codegen()
    usual = codegen._library_class
    codegen._library_class, context.get_executable = _Part, _linked
    try:
        yield
    finally:
        codegen._library_class = usual
        del context.get_executable


def _compile(name: str) -> tuple[Any, Any]:
    """The optimized LLVM module of a kernel, its entry point renamed to _SYMBOL, and the target machine."""
    with global_compiler_lock:  # modules of kernels are imported in it, too: Numba's registries are not for two at once
        function, arguments, returns = _source(name)
        typing_context, target_context = cpu_target.typing_context, cpu_target.target_context
        typing_context.refresh()
        target_context.refresh()
        with _only_parts(), warnings.catch_warnings():
            # A function compiled for one record may serve another that begins alike. That is right, and said to be new.
            warnings.simplefilter("ignore", NumbaExperimentalFeatureWarning)
            contexts, flags = (typing_context, target_context), _flags(name)
            result = compiler.compile_extra(*contexts, function, arguments, returns, flags, {})
        module, codegen = result.library._final_module, result.library._codegen
        module.get_function(result.fndesc.llvm_func_name).name = _SYMBOL
        _optimize(module, codegen._tm)
    return module, codegen._tm


def _optimize(module: Any, machine: Any) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization, options.slp_vectorization = True, False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)


def _source(name: str) -> tuple[Callable[..., Any], tuple[Any, ...], Any]:
    """Function, argument types and return type of a kernel, or of one of the team's own functions."""
    from . import kernels
    from .kernels import walk

    family, _, variant = name.partition(".")
    if family == "team":
        return getattr(walk, variant), (types.uint64, types.int64), types.int64
    kernels.register(family)
    records = tuple(numba.from_dtype(dtype) for dtype in (args_of(family), STEP))
    return _kernels[family](variant), (*records, types.int64, types.int64), types.void
