"""The public model: load it, ask it, close it.

    with Model.load("model.gguf") as model:
        for piece in model.generate("Once upon a time", max_tokens=64):
            print(piece, end="")
"""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..formats.errors import Cancelled, ContextOverflow, HalfbyteError, InvalidRequest, ResourceError, UnsupportedError
from .backends.base import CancelFlag, Executor, Progress
from .chat import ChatTemplate, template_for
from .engine.capacity import PARALLEL
from .engine.embedding import POOLINGS, embed, normalized
from .engine.engine import Engine, EngineStats
from .engine.generate import GenerateRequest, LogitsRequest, ReadRequest
from .engine.generation import Generation
from .engine.sampling import LogitsProcessor, Sampler, SamplingParams
from .engine.stop import StopStrings
from .loading import Loaded, LoadOptions, load
from .session import Session
from .tokenize import Tokenizer, whole_numbers


class Model:
    """A loaded model. Every method may be called from any number of threads at once; requests run side by side.

    Use `Model.load`, as a context manager or with `close()`.
    """

    def __init__(self, parts: Loaded) -> None:
        self._facts, self._tokenizer = parts.facts, parts.tokenizer
        self._engine = Engine(parts.executor, whole_texts=parts.facts.pooling is not None)
        self._template: ChatTemplate | None = None

    @classmethod
    def load(
        cls,
        path_or_name: str | os.PathLike[str],
        *,
        threads: int | None = None,
        context: int | None = None,
        progress: Progress | None = None,
        backend: str = "cpu",
        parallel: int = PARALLEL,
        kv_type: str | None = None,
        gpu_layers: int | str = 0,
        tensor_split: Sequence[float] = (),
        place: Sequence[str] = (),
        cancel: CancelFlag | None = None,
    ) -> Model:
        """Load a GGUF file, or a model by name (`halfbyte pull` lists them; it is downloaded when it is not here yet).

        threads    default: physical cores
        context    tokens one request may use, prompt and answer together; default: as trained, at most 8192
        progress   called as progress(stage, done, total) on the calling thread
        backend    "cpu", or "reference": NumPy, slow, the definition of what is right
        parallel   requests of full context length that memory is reserved for. Any number may be made, and shorter ones
                   share the room; reserved memory costs nothing until used, and less is reserved where it is short
        kv_type    how keys and values are kept: "f16", or "f32", which rounds nothing and takes twice the memory;
                   default: "f32" of models whose weights are float32 and of the reference, else "f16"
        gpu_layers so many of the last layers, and the output head, go to a GPU; "all", or "auto": as many as fit, none
                   where there is no GPU. See docs/cuda.md
        tensor_split  shares of several GPUs in these layers
        place      "PATTERN=DEVICE" (cpu, cuda:N): where weights go whose names the regular expression is found in
        cancel     ends the load with Cancelled within 50 ms when set by another thread

        Raises HalfbyteError for a path or name that does not exist, DownloadError when no source delivers,
        ModelFileError and TokenizerError for a file that is wrong, UnsupportedError for one this version cannot run,
        ContextOverflow for a context the model cannot represent, ResourceError when memory or disk does not suffice,
        InvalidRequest for other arguments.
        """
        options = LoadOptions(
            context=context, threads=threads, backend=backend, parallel=parallel, kv_type=kv_type,
            gpu_layers=gpu_layers, tensor_split=tensor_split, place=place,
        )  # fmt: skip
        return cls(load(path_or_name, options, progress=progress, cancel=cancel))

    @property
    def path(self) -> Path:
        """The file (the first one of a split model)."""
        return self._facts.path

    @property
    def name(self) -> str:
        """What the file calls the model."""
        return self._facts.name

    @property
    def architecture(self) -> str:
        """The model family, as in the file: "llama", "qwen3", ..."""
        return self._facts.architecture

    @property
    def context(self) -> int:
        """Tokens one request may use, prompt and answer together."""
        return self._facts.context

    @property
    def context_length(self) -> int:
        """Tokens the model was trained for."""
        return self._facts.context_length

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        return self._facts.vocab_size

    @property
    def n_layer(self) -> int:
        return self._facts.n_layer

    @property
    def n_embd(self) -> int:
        return self._facts.n_embd

    @property
    def n_params(self) -> int:
        """Elements of all tensors."""
        return self._facts.n_params

    @property
    def pooling(self) -> str | None:
        """How `embed` makes one vector of a text: "mean", "cls", "last" or "none". None for a model that generates."""
        return self._facts.pooling

    @property
    def threads(self) -> int:
        """Threads the kernels run on."""
        return self._facts.threads

    @property
    def backend(self) -> str:
        return self._facts.backend

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def executor(self) -> Executor:
        """What runs the steps, for tools that look into it while nothing is running. There is none after `close`."""
        return self._engine.runner.executor

    @property
    def is_closed(self) -> bool:
        return self._engine.is_closed

    def stats(self) -> EngineStats:
        """What the engine is doing now."""
        return self._engine.stats()

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of a text. `add_special` adds what the model expects at the start of every text (BOS),
        `parse_special` reads "<|im_end|>" and the like as the control tokens they spell; switch it off for text you do
        not trust.
        """
        return self.tokenizer.encode(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, ids: Iterable[int]) -> str:
        """The text of token ids; bytes that are not UTF-8 become U+FFFD."""
        return self.tokenizer.decode(self._checked(ids))

    def logits(self, ids: Iterable[int], *, cancel: CancelFlag | None = None) -> NDArray[np.float32]:
        """Logits after each of `ids`, float32 [len(ids), vocab_size]; row i predicts token i + 1.

        Raises ContextOverflow, InvalidRequest (no tokens, an id out of range), ResourceError (no memory for the
        result), ExecutionError (a step failed), UnsupportedError (an embedding model), ModelClosed, Cancelled.
        """
        self._check_generates()
        tokens = self._checked(ids)
        self._check_length(tokens, 0)
        try:
            request = LogitsRequest(tokens, self.vocab_size, cancel=cancel)
        except MemoryError:
            size = len(tokens) * self.vocab_size * 4
            raise ResourceError(f"no memory for {size:,} bytes of logits; ask for fewer tokens") from None
        self._engine.submit(request, len(tokens))
        try:
            end = request.next_event()
        except BaseException:  # Ctrl-C while waiting
            request.cancel()
            raise
        if end.error is not None:
            raise end.error
        if end.reason == "cancelled":
            raise Cancelled("the computation of logits was cancelled")
        return request.result()

    def embed(
        self,
        texts: str | Iterable[str | Sequence[int]],
        *,
        pooling: str | None = None,
        normalize: bool = True,
        cancel: CancelFlag | None = None,
    ) -> NDArray[np.float32]:
        """Vectors of texts, float32 [texts, n_embd], in order; texts that mean alike have vectors that are alike.

        texts      one text or several; the model's special tokens are added (see `tokenize`). Or token ids, used as
                   they are
        pooling    "mean", "cls" (first token), "last", or "none": one row a token, text after text; default: the
                   model's own
        normalize  whether vectors are divided by their length

        Raises UnsupportedError for a model that generates, ContextOverflow for a text that is too long (nothing is ever
        cut off), InvalidRequest for another pooling or a text without tokens, ExecutionError, ModelClosed, Cancelled.
        """
        if self.pooling is None:
            raise UnsupportedError(
                f"{self.name!r} ({self.architecture}) predicts tokens and makes no embeddings; load an embedding model"
            )
        pooling = self.pooling if pooling is None else pooling
        if pooling not in POOLINGS:
            raise InvalidRequest(f"pooling={pooling!r}: known are {', '.join(map(repr, POOLINGS))}")
        given = [texts] if isinstance(texts, str) else texts
        tokens = [self.tokenize(text) if isinstance(text, str) else self._checked(text) for text in given]
        for ids in tokens:
            self._check_length(ids, 0)
        rows = embed(self._engine, tokens, pooling, cancel=cancel)
        vectors = np.concatenate(rows) if rows else np.empty((0, self.n_embd), np.float32)
        return normalized(vectors) if normalize else vectors

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = None,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        repeat_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        penalty_last_n: int = 64,
        seed: int | None = None,
        logit_bias: Mapping[int, float] | None = None,
        logprobs: int | None = None,
        processors: Sequence[LogitsProcessor] = (),
        stop: str | Sequence[str] = (),
        cancel: CancelFlag | None = None,
    ) -> Generation:
        """Continue a text. Returns at once; iterate over the result for pieces of text, or `.read()` all of it.

        prompt       text (BOS is added, control tokens are read: see `tokenize`) or token ids, used as they are
        max_tokens   default: until the model ends or the context is full (`finish_reason` "length")
        stop         strings that end the text; they are not part of it
        cancel       a flag another thread may set; `Generation.cancel()` does the same for one request
        The others are explained by SamplingParams; temperature=0 always takes the likeliest token.

        Raises ContextOverflow (prompt and max_tokens exceed the context; nothing is ever cut off), InvalidRequest (no
        tokens, a number out of range, an empty stop string), UnsupportedError (an embedding model), ModelClosed.
        Reading the result raises ExecutionError when a step or one of `processors` fails, and ModelClosed when the
        model is closed meanwhile.
        """
        params = SamplingParams(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repeat_penalty=repeat_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            penalty_last_n=penalty_last_n,
            seed=seed,
            logit_bias=logit_bias,
            logprobs=logprobs,
            processors=tuple(processors),
        )
        tokens = self.tokenize(prompt) if isinstance(prompt, str) else self._checked(prompt)
        return self._start(tokens, params, max_tokens, stop, cancel)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_options: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        repeat_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        penalty_last_n: int = 64,
        seed: int | None = None,
        logit_bias: Mapping[int, float] | None = None,
        logprobs: int | None = None,
        processors: Sequence[LogitsProcessor] = (),
        stop: str | Sequence[str] = (),
        cancel: CancelFlag | None = None,
    ) -> Generation:
        """Answer a conversation: `messages` are dicts with "role" and "content", put into the model's own chat format.

        `tools` are JSON schemas of functions; `template_options` are switches of the template, such as
        {"enable_thinking": False}. The rest is as for `generate`.

        Raises InvalidRequest for messages or tools of the wrong form, TemplateError when the model's template is
        broken or refuses them, and what `generate` raises.
        """
        prompt = self.chat_prompt(messages, tools=tools, template_options=template_options)
        return self.generate(
            prompt,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repeat_penalty=repeat_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            penalty_last_n=penalty_last_n,
            seed=seed,
            logit_bias=logit_bias,
            logprobs=logprobs,
            processors=processors,
            stop=stop,
            cancel=cancel,
        )

    def chat_prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_options: Mapping[str, Any] | None = None,
        add_generation_prompt: bool = True,
    ) -> list[int]:
        """The tokens that `chat` would send: the rendered template, with exactly one BOS where the model wants one."""
        self._check_generates()
        if self._template is None:
            self._template = template_for(self.tokenizer)
        if template_options is not None and not isinstance(template_options, Mapping):
            raise TypeError(f"template_options must be a mapping, not {type(template_options).__name__}")
        text = self._template.render(
            messages, tools=tools, add_generation_prompt=add_generation_prompt, **dict(template_options or {})
        )
        tokens = self.tokenize(text)
        if len(tokens) > 1 and tokens[0] == tokens[1] == self.tokenizer.bos_id:
            return tokens[1:]  # the template wrote it too
        return tokens

    def read_ahead(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        """Read a conversation in the background, so that `chat` with what continues it begins sooner. Returns at once.

        Worth it while somebody reads an answer and types. What could not be read is read by `chat`, which then raises
        what is wrong with it.
        """
        with contextlib.suppress(HalfbyteError):
            tokens = self.chat_prompt(messages, tools=tools, add_generation_prompt=False)
            self._check_length(tokens, 0)
            self._engine.submit(ReadRequest(tokens), len(tokens))

    def session(
        self, *, messages: Sequence[Mapping[str, Any]] = (), tools: Sequence[Mapping[str, Any]] | None = None
    ) -> Session:
        """A conversation that remembers; `messages` is how it begins, for instance with a system message.

        Raises ModelClosed.
        """
        self._engine.check_open()
        return Session(self, messages, tools)

    def close(self) -> None:
        """End all requests with ModelClosed and give back threads and memory. Harmless when repeated."""
        self._engine.close()

    def __enter__(self) -> Model:
        self._engine.check_open()  # here, not at the first request within the block
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)  # absent when __init__ failed
        if engine is not None:
            engine.close(wait=False)  # the collector may run in any thread, even in the engine's own

    def __reduce__(self) -> str:
        raise TypeError("a model cannot be copied or pickled; threads share it, and other processes load it again")

    def __repr__(self) -> str:
        state = ", closed" if self.is_closed else ""
        where = f"{self.backend} x {self.threads}"
        return f"<Model {self.name!r} ({self.architecture}), context {self.context}, {where}{state}>"

    def _start(
        self,
        tokens: list[int],
        params: SamplingParams,
        max_tokens: int | None,
        stop: str | Sequence[str],
        cancel: CancelFlag | None,
    ) -> Generation:
        self._check_generates()
        if max_tokens is not None and (isinstance(max_tokens, bool) or operator.index(max_tokens) < 1):
            raise InvalidRequest(f"max_tokens={max_tokens}: at least 1 is needed, or None for as many as fit")
        self._check_length(tokens, max_tokens or 1)
        limit = self.context if max_tokens is None else len(tokens) + max_tokens
        request = GenerateRequest(
            tokens,
            limit=limit,
            sampler=Sampler(params, self.vocab_size),
            stream=self.tokenizer.stream(),
            stops=StopStrings([stop] if isinstance(stop, str) else list(stop)),
            eog_ids=self.tokenizer.eog_ids,
            cancel=cancel,
        )
        self._engine.submit(request, limit)
        return Generation(request)

    def _check_generates(self) -> None:
        if self.pooling is not None:
            raise UnsupportedError(
                f"{self.name!r} ({self.architecture}) makes embeddings of texts and cannot generate; use embed"
            )

    def _check_length(self, tokens: list[int], extra: int) -> None:
        if not tokens:
            raise InvalidRequest("the prompt is empty: at least one token is needed")
        if len(tokens) + extra > self.context:
            raise ContextOverflow(len(tokens) + extra, self.context)

    def _checked(self, ids: Iterable[int]) -> list[int]:
        """Token ids as plain ints, each of them a row of the embedding table."""
        tokens = whole_numbers(ids)
        for token in tokens:
            if not 0 <= token < self.vocab_size:
                raise InvalidRequest(f"token id {token} is not in the vocabulary of {self.vocab_size}")
        return tokens
