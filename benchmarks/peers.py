"""llama.cpp, by way of llama-cpp-python's binding of the C API: the program that Halfbyte is measured against.

The C API is called directly, because the binding's own classes do work of their own for every token. Parameters are
llama.cpp's defaults where nothing else is said.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import importlib.util
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .common import give_up
from .engines import MAX_TOKENS

if TYPE_CHECKING:
    from halfbyte.converters.quantize import Importance

FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}


MISSING = "llama-cpp-python is not installed; run: pip install llama-cpp-python (it needs a C++ compiler)"


def is_installed() -> bool:
    """llama.cpp can be measured here."""
    return importlib.util.find_spec("llama_cpp") is not None


def _library() -> Any:
    if not is_installed():
        give_up(MISSING)
    import llama_cpp

    return llama_cpp


@functools.cache
def _initialize(api: Any) -> Any:
    """Start the library and silence its log. The result, the log's callback, must live as long as the process."""
    callback = api.llama_log_callback(lambda level, text, data: None)
    api.llama_log_set(callback, None)
    api.llama_backend_init()
    return callback


def start() -> None:
    """Load and start the library, which a first model would do otherwise."""
    _initialize(_library())


def quantize(
    source: Path,
    target: Path,
    file_type: int,
    *,
    threads: int = 2,
    importance: Importance | None = None,
    **options: bool,
) -> None:
    """llama_model_quantize by the recipe with this number. `options` are fields of its parameters."""
    api = _library()
    _initialize(api)
    params = api.llama_model_quantize_default_params()
    params.ftype, params.nthread = file_type, threads
    for name, value in options.items():
        setattr(params, name, value)
    if importance is not None:
        columns, origin = _imatrix(api, importance), _origin(api, importance)  # which live until the call returns
        params.imatrix, params.kv_overrides = (
            ctypes.cast(made, type(field))
            for made, field in ((columns, params.imatrix), (origin, params.kv_overrides))
        )
    status = api.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params))
    if status:
        give_up(f"llama.cpp cannot quantize {source.name} by recipe {file_type}: status {status}")


def _imatrix(api: Any, importance: Importance) -> Any:
    """llama_model_imatrix_data of every tensor, and the end."""
    floats = ctypes.POINTER(ctypes.c_float)
    entries = [
        (name.encode(), np.ascontiguousarray(values).ctypes.data_as(floats), values.size)
        for name, values in importance.columns.items()
    ]
    return (api.llama_model_imatrix_data * (len(entries) + 1))(*entries)


def _origin(api: Any, importance: Importance) -> Any:
    """What llama-quantize adds to a file's metadata, as llama_model_kv_override, and the end."""
    texts = {"file": importance.file, "dataset": importance.dataset}
    numbers = {"entries_count": len(importance.columns), "chunks_count": importance.chunks}
    table = (api.llama_model_kv_override * (len(texts) + len(numbers) + 1))()
    for row, (key, value) in zip(table, [*texts.items(), *numbers.items()], strict=False):
        row.key = f"quantize.imatrix.{key}".encode()
        if isinstance(value, str):
            row.tag, row.value.val_str = api.LLAMA_KV_OVERRIDE_TYPE_STR, value.encode()[:127]
        else:
            row.tag, row.value.val_i64 = api.LLAMA_KV_OVERRIDE_TYPE_INT, value
    return table


class LlamaCpp:
    """A model and one context of `sequences` sequences, `context` tokens each. See engines.Engine.

    With `repack` false weights stay as the file has them, and AMX is not used.

    It computes in a thread of its own, to which each step is handed over: it sets tile registers (AMX) up once for a
    thread, and where Halfbyte gave them back meanwhile, it would end with an illegal instruction.
    """

    def __init__(
        self,
        path: Path,
        *,
        context: int,
        threads: int,
        flash_attention: str = "auto",
        sequences: int = 1,
        repack: bool = True,
    ) -> None:
        self._api = api = _library()
        self._own = ThreadPoolExecutor(1, "llama.cpp")
        _initialize(api)
        model_params = api.llama_model_default_params()
        model_params.use_extra_bufts = repack
        self._model = api.llama_model_load_from_file(os.fsencode(path), model_params)
        if not self._model:
            give_up(f"llama.cpp cannot load {path.name}")
        params = api.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context * sequences, MAX_TOKENS, MAX_TOKENS
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = FLASH_ATTENTION[flash_attention]
        self._context = api.llama_init_from_model(self._model, params)
        if not self._context:
            give_up(f"llama.cpp cannot make a context of {context} tokens for {path.name}")
        self._memory = api.llama_get_memory(self._context)
        self._lengths = [0] * sequences
        self._vocab = api.llama_model_get_vocab(self._model)
        self.vocab_size = int(api.llama_vocab_n_tokens(self._vocab))

    @property
    def build(self) -> str:
        """The instruction sets it was compiled for, in its own words."""
        return str(self._api.llama_print_system_info().decode()).strip()

    def clear(self) -> None:
        self._api.llama_memory_clear(self._memory, False)
        self._lengths = [0] * len(self._lengths)

    def rewind(self, length: int) -> None:
        for sequence, held in enumerate(self._lengths):
            if held > length and not self._api.llama_memory_seq_rm(self._memory, sequence, length, -1):
                raise RuntimeError("this model's memory cannot be rewound")
        self._lengths = [min(held, length) for held in self._lengths]

    def run(self, ids: Sequence[int] | NDArray[np.int32], sequence: int = 0) -> NDArray[np.float32]:
        if sequence:
            last = len(ids) - 1
            self._append([(int(token), sequence, i == last) for i, token in enumerate(ids)])
        else:  # the short way, with logits for the last token only
            tokens = (self._api.llama_token * len(ids))(*ids)
            self._decode(self._api.llama_batch_get_one(tokens, len(ids)))
            self._lengths[0] += len(ids)
        return self._array(self._api.llama_get_logits_ith(self._context, -1), (self.vocab_size,))

    def run_each(self, ids: Sequence[int] | NDArray[np.int32]) -> NDArray[np.float32]:
        self._append([(int(token), i, True) for i, token in enumerate(ids)])
        return self._array(self._api.llama_get_logits(self._context), (len(ids), self.vocab_size))

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        self.clear()
        self._append([(token, 0, True) for token in ids])
        return self._array(self._api.llama_get_logits(self._context), (len(ids), self.vocab_size))

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        data = text.encode()
        room = (self._api.llama_token * (len(data) + 2))()
        count = self._api.llama_tokenize(self._vocab, data, len(data), room, len(room), add_special, parse_special)
        if count < 0:
            give_up(f"llama.cpp needs {-count} tokens for a text of {len(data)} bytes")
        return list(room[:count])

    def detokenize(self, ids: Sequence[int]) -> str:
        tokens = (self._api.llama_token * len(ids))(*ids)
        room = ctypes.create_string_buffer(64 * len(ids) + 64)
        count = self._api.llama_detokenize(self._vocab, tokens, len(ids), room, len(room), False, False)
        return room.raw[: max(0, count)].decode(errors="replace")

    def is_end(self, token: int) -> bool:
        """The token ends a generation."""
        return bool(self._api.llama_vocab_is_eog(self._vocab, token))

    def close(self) -> None:
        self._own.shutdown()
        self._api.llama_free(self._context)
        self._api.llama_model_free(self._model)

    def _append(self, rows: Sequence[tuple[int, int, bool]]) -> None:
        """Run one batch: token, its sequence, and whether its logits are wanted."""
        batch = self._api.llama_batch_init(len(rows), 0, 1)
        try:
            batch.n_tokens = len(rows)
            for i, (token, sequence, wanted) in enumerate(rows):
                batch.token[i], batch.pos[i] = token, self._lengths[sequence]
                batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, sequence, wanted
                self._lengths[sequence] += 1
            self._decode(batch)
        finally:
            self._api.llama_batch_free(batch)

    def _decode(self, batch: Any) -> None:
        self._own.submit(self._decode_here, batch).result()

    def _decode_here(self, batch: Any) -> None:
        status = self._api.llama_decode(self._context, batch)
        if status:
            raise RuntimeError(f"llama_decode failed with status {status}")
        self._api.llama_synchronize(self._context)  # done when it returns

    def _array(self, pointer: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return np.ctypeslib.as_array(pointer, shape)


def describe(build: str | None, args: argparse.Namespace) -> str:
    """A line for reports: which llama.cpp was measured, and how it was run."""
    if build is None:
        return f"No comparison: {MISSING}"
    return f"llama.cpp: {build} flash attention {args.flash_attention}, waiting threads {args.omp_wait}."
