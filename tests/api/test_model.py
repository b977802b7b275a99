"""Model: results against another implementation's, limits, cancelling, closing, many threads."""

from __future__ import annotations

import _thread
import copy
import gc
import os
import pickle
import threading
import time
import weakref

import numpy as np
import pytest
from halfbyte import (
    CancelFlag,
    Cancelled,
    ContextOverflow,
    HalfbyteError,
    InvalidRequest,
    Model,
    ModelFileError,
    SamplingParams,
    TokenizerError,
)
from halfbyte.runtime.backends.reference import ReferenceExecutor
from halfbyte.runtime.tokenize.texts import Texts

STORY = "Once upon a time"


def greedy(model: Model, prompt, n: int) -> str:
    return model.generate(prompt, max_tokens=n, temperature=0).read()


@pytest.fixture
def slow(model: Model, monkeypatch):
    """The model with steps of at least half a second, cancellable all the way."""
    run = ReferenceExecutor.run

    def run_slowly(self, step, cancel=None):
        end = time.perf_counter() + 0.5
        while time.perf_counter() < end:
            if cancel:
                raise Cancelled("between two operations")
            time.sleep(0.001)
        return run(self, step, cancel)

    monkeypatch.setattr(ReferenceExecutor, "run", run_slowly)
    return model


def test_it_says_what_another_implementation_says(model, expected):
    for case in expected:
        assert model.tokenize(case["prompt"]) == case["ids"]
        generation = model.generate(case["prompt"], max_tokens=len(case["greedy"]), temperature=0)
        assert case["prompt"] + generation.read() == case["text"]
        assert generation.ids == case["greedy"]
        assert generation.finish_reason == "length"
        np.testing.assert_allclose(model.logits(case["ids"])[-1, :8], case["last_logits_first8"], atol=2e-3)


def test_facts(model):
    assert (model.name, model.architecture, model.backend) == ("stories260K", "llama", "reference")
    assert model.context == model.context_length == 512 and model.vocab_size == 512
    assert model.threads >= 1 and model.path.name == "stories260k.gguf"
    assert "stories260K" in repr(model)


def test_text_arrives_in_pieces_and_usage_adds_up(model):
    generation = model.generate(STORY, max_tokens=20, temperature=0)
    pieces = list(generation)
    assert len(pieces) > 5 and "".join(pieces) == generation.text
    assert [t.id for t in generation.tokens] == generation.ids and len(generation.ids) == 20
    usage = generation.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (5, 20)
    assert usage.prompt_seconds > 0 and usage.decode_seconds > 0 and usage.tokens_per_second > 0
    assert list(generation) == []


def test_token_ids_are_a_prompt_too(model):
    assert greedy(model, model.tokenize(STORY), 10) == greedy(model, STORY, 10)
    assert greedy(model, np.array(model.tokenize(STORY)), 10) == greedy(model, STORY, 10)


def test_a_stop_string_ends_the_text_before_it(model):
    generation = model.generate(STORY, max_tokens=60, temperature=0, stop="Lily")
    assert generation.read() == ", there was a little girl named "
    assert generation.finish_reason == "stop"
    assert len(generation.ids) < 20


def test_logits_are_freed_with_their_last_reference(model):
    """A text is read window by window: memory is flat only if none of them waits for the garbage collector."""
    ids = model.tokenize(STORY)
    gc.disable()
    try:
        logits = model.logits(ids)
        gone = weakref.ref(logits)
        del logits
        assert gone() is None
    finally:
        gc.enable()


def test_logits_of_a_long_text_equal_those_of_one_step(model):
    ids = model.tokenize(greedy(model, STORY, 400))[:300]
    rows = model.logits(ids)
    assert rows.shape == (300, 512) and rows.dtype == np.float32 and rows.flags.owndata
    for n in (1, 17, 129, 299):
        np.testing.assert_allclose(model.logits(ids[: n + 1])[n], rows[n], rtol=1e-4, atol=1e-4)
    rows[:] = 0
    assert model.logits(ids[:1]).any()


def test_a_prompt_that_begins_alike_gives_the_same_probabilities_and_less_work():
    with Model.load("stories260k", backend="reference") as model:
        story = model.generate(STORY, max_tokens=150, temperature=0)
        story.read()
        prompt = [*model.tokenize(STORY), *story.ids]
    with Model.load("stories260k", backend="reference") as model:
        runs = []
        for _ in range(2):
            before = model.stats().num_tokens
            runs.append(model.generate(prompt, max_tokens=20, temperature=0, logprobs=3))
            runs[-1].read()
        assert model.stats().num_tokens - before == 20  # the last token of the prompt, then one per token but the last
        assert (runs[0].usage.cached_tokens, runs[1].usage.cached_tokens) == (0, len(prompt) - 1)
        for first, second in zip(runs[0].tokens, runs[1].tokens, strict=True):
            assert first.id == second.id
            assert first.logprob == pytest.approx(second.logprob, abs=1e-4)


def test_sixteen_threads_get_the_text_each_gets_alone(model):
    names, places = ("Tom", "Lily", "Sam", "Anna"), ("park", "sea")
    prompts = [f"{name} went to the {place} and" for name in names for place in places]
    prompts += [STORY + ", " + p for p in prompts]
    alone = [greedy(model, p, 40) for p in prompts]
    together: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda i=i: together.update({i: greedy(model, prompts[i], 40)})) for i in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[i] for i in range(16)] == alone
    assert len(set(alone)) > 8


def test_a_context_that_is_too_small_is_an_error_with_both_numbers(model):
    steps = model.stats().num_steps
    for prompt, max_tokens, needed in (([5] * 513, None, 514), ([5] * 512, None, 513), ([5] * 500, 13, 513)):
        with pytest.raises(ContextOverflow, match=f"{needed} tokens .* 512") as caught:
            model.generate(prompt, max_tokens=max_tokens)
        assert (caught.value.needed, caught.value.available) == (needed, 512)
    with pytest.raises(ContextOverflow):
        model.logits([5] * 513)
    assert model.stats().num_steps == steps


def test_without_max_tokens_the_text_goes_to_the_end_of_the_context(model):
    generation = model.generate([5] * 450, temperature=0, logit_bias={2: -100.0, 1: -100.0})
    generation.read()
    assert (generation.finish_reason, len(generation.ids)) == ("length", 62)


@pytest.mark.parametrize(
    ("prompt", "options"),
    [("", {}), ([], {}), ([512], {}), ([-1], {}), ("x", {"max_tokens": 0}), ("x", {"max_tokens": -3})],
)
def test_requests_that_cannot_work_are_refused(model, prompt, options):
    if prompt == "":  # BOS makes even an empty text a prompt, so only a model without one can refuse it
        prompt = model.tokenize("", add_special=False)
    with pytest.raises(InvalidRequest):
        model.generate(prompt, **options)


def test_ids_must_be_whole_numbers(model):
    with pytest.raises(TypeError):
        model.generate([1.5])
    with pytest.raises(TypeError):
        model.logits("text")


@pytest.mark.parametrize("how", ["method", "flag"])
def test_cancel_from_another_thread_while_waiting(slow, how):
    flag = CancelFlag()
    generation = slow.generate(STORY, cancel=flag)
    set_at = []

    def cancel() -> None:
        set_at.append(time.perf_counter())
        generation.cancel() if how == "method" else flag.set()

    threading.Timer(0.1, cancel).start()
    assert generation.read() == ""
    assert time.perf_counter() - set_at[0] < 0.05
    assert generation.finish_reason == "cancelled"


@pytest.mark.parametrize("prompt", [b"abc", None, 5])
def test_a_prompt_is_text_or_token_ids(model, prompt):
    with pytest.raises(TypeError):
        model.generate(prompt, max_tokens=2)


@pytest.mark.parametrize("max_tokens", [2.5, "3"])
def test_max_tokens_is_a_whole_number(model, max_tokens):
    with pytest.raises(TypeError):
        model.generate(STORY, max_tokens=max_tokens)


@pytest.mark.parametrize("name", [b"abc", None, 5, ["a"]])
def test_a_name_is_a_str_or_a_path(name):
    with pytest.raises(TypeError, match="a model is named by a str or a path, not"):
        Model.load(name)


@pytest.mark.parametrize("ids", [b"abc", "abc", [1.5], np.array([[1, 2]])])
def test_ids_of_other_types_are_refused_alike(model, ids):
    for call in (model.detokenize, model.logits, model.tokenizer.decode):
        with pytest.raises(TypeError, match=r"token ids? is (needed|a whole number), not"):
            call(ids)


def test_an_id_outside_the_vocabulary_is_a_wrong_request(model):
    for call in (model.detokenize, model.logits, model.tokenizer.decode):
        with pytest.raises(InvalidRequest, match="token id 99999 is"):
            call([99999])


def test_a_chosen_token_that_the_tokenizer_lacks_is_no_request(model, monkeypatch):
    """Matrices may have more rows than there are tokens; nobody asked for one of these."""
    monkeypatch.setattr(model.tokenizer, "_tokens", Texts(["a"] * 510))
    with pytest.raises(TokenizerError, match="the model chose a token that its tokenizer lacks"):
        model.generate("Once", max_tokens=1, temperature=0, logit_bias={511: 1000.0}).read()


def test_a_name_that_is_too_long_for_a_file():
    with pytest.raises(HalfbyteError, match="neither a file nor a known name"):
        Model.load("a" * 100_000)


def test_cancelled_logits_raise(slow):
    flag = CancelFlag()
    threading.Timer(0.05, flag.set).start()
    begin = time.perf_counter()
    with pytest.raises(Cancelled):
        slow.logits([1, 2, 3], cancel=flag)
    assert time.perf_counter() - begin < 0.2


def test_the_model_is_usable_after_a_cancel(model):
    text = greedy(model, STORY, 30)
    generation = model.generate(STORY, temperature=0)
    next(generation)
    generation.cancel()
    read = generation.read()
    assert generation.finish_reason == "cancelled" and read == generation.text
    assert greedy(model, STORY, 30) == text


def test_ctrl_c_while_waiting_cancels_and_leaves_the_model_usable(slow, monkeypatch):
    generation = slow.generate(STORY)
    threading.Timer(0.1, _thread.interrupt_main).start()
    begin = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        generation.read()
    assert time.perf_counter() - begin < 0.4
    assert generation.finish_reason is None or generation.finish_reason == "cancelled"
    assert list(generation) == [] and generation.finish_reason == "cancelled"
    monkeypatch.undo()
    assert greedy(slow, STORY, 5)


def test_a_generation_nobody_holds_cancels_itself(model):
    generation = model.generate(STORY, temperature=0)
    next(generation)
    del generation
    gc.collect()
    _wait_until(lambda: model.stats().num_running == 0)


def test_leaving_the_with_block_cancels(model):
    with model.generate(STORY) as generation:
        next(generation)
    assert generation.finish_reason == "cancelled"


def test_a_failing_processor_ends_its_own_request_only(model):
    def broken(*args):
        raise RuntimeError("my processor")

    bad = model.generate(STORY, processors=[broken])
    good = model.generate(STORY, max_tokens=5, temperature=0)
    with pytest.raises(HalfbyteError, match="my processor") as caught:
        bad.read()
    assert isinstance(caught.value.__cause__, RuntimeError) and bad.finish_reason is None
    assert len(good.read()) > 5


def test_a_missing_file_and_a_wrong_one(tmp_path):
    with pytest.raises(HalfbyteError, match="no such file"):
        Model.load(tmp_path / "none.gguf")
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"<html>" * 20)
    with pytest.raises(ModelFileError, match=r"wrong\.gguf"):
        Model.load(wrong)


def _wait_until(condition) -> None:
    end = time.perf_counter() + 5
    while not condition():
        assert time.perf_counter() < end, "it did not happen in time"
        time.sleep(0.005)


def test_errors_and_parameters_survive_pickling():
    error = pickle.loads(pickle.dumps(ContextOverflow(5, 3)))
    assert (error.needed, error.available, str(error)) == (5, 3, str(ContextOverflow(5, 3)))
    params = SamplingParams(temperature=0.5, logit_bias={1: 2.0}, seed=7)
    assert pickle.loads(pickle.dumps(params)) == copy.deepcopy(params) == params


def test_a_copy_of_a_model_is_refused(model):
    """Its end would be that of the model."""
    for make in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="threads share it"):
            make(model)
    assert not model.is_closed


@pytest.mark.parametrize("cancel", [5, "x", CancelFlag])
def test_what_is_no_flag_is_refused(cancel, model):
    for call in (
        lambda: model.generate("Once", cancel=cancel),
        lambda: model.logits([1], cancel=cancel),
        lambda: Model.load("stories260k", backend="reference", cancel=cancel),
    ):
        with pytest.raises(TypeError, match="CancelFlag"):
            call()


def test_mappings_of_other_types_are_refused(model):
    with pytest.raises(TypeError, match="mapping"):
        model.chat([{"role": "user", "content": "Hi"}], template_options="x")
    with pytest.raises(TypeError, match="mapping"):
        model.session(messages="x")


def test_two_readers_of_one_generation_are_told(model):
    """Each event is there once: the second would wait for ever."""
    paused, go_on = threading.Event(), threading.Event()

    def wait(history, logits):
        paused.set()
        go_on.wait(10)
        return logits

    generation = model.generate("Once", max_tokens=3, temperature=0, processors=[wait])
    reader = threading.Thread(target=generation.read)
    reader.start()
    assert paused.wait(10)
    with pytest.raises(InvalidRequest, match="another thread"):
        next(generation)
    closer = threading.Thread(target=generation.close)
    closer.start()
    go_on.set()
    reader.join(10)
    closer.join(10)
    assert not reader.is_alive() and not closer.is_alive()
    assert generation.read() == generation.text  # anybody reads what has ended


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_generation_from_before_a_fork_ends_with_an_error():
    with Model.load("stories260k", backend="reference") as model:
        generation = model.generate("Once upon a time", temperature=0)
        next(generation)
        child = os.fork()
        if child == 0:
            try:
                generation.read()
            except InvalidRequest:
                os._exit(7)
            finally:
                os._exit(1)
        for _ in range(100):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            time.sleep(0.1)
        else:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child waits for ever")
        assert os.waitstatus_to_exitcode(status) == 7
