"""`halfbyte run`, `perplexity`, `bench`, `warmup`, `doctor` with the shipped model on the reference backend."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halfbyte.formats.gguf import GGUFFile, GGUFWriter

from ..switches import needs_kernels

ROOT = Path(__file__).parents[2]
REFERENCE = ("--backend", "reference")
GREEDY = ("--temperature", "0", *REFERENCE)
START = "Once upon a time"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model with a chat template, and a token text that would control a terminal."""
    path = tmp_path_factory.mktemp("model") / "chat.gguf"
    writer = GGUFWriter(path)
    with GGUFFile.open(ROOT / "runtime" / "assets" / "stories260k.gguf") as source:
        tokens = [text + "\x1b[2J" if text == "\u2581a" else text for text in source.metadata["tokenizer.ggml.tokens"]]
        writer.add_all(source.metadata, exclude=["tokenizer.ggml.tokens"])
        writer.add("tokenizer.ggml.tokens", tokens)
        writer.add("tokenizer.chat_template", CHATML)
        for tensor in source.tensors.values():
            writer.add_tensor(tensor.name, tensor.shape, tensor.type)
        with writer.open():
            for tensor in source.tensors.values():
                writer.write_tensor(tensor.name, np.asarray(tensor.data))
    return path


def greedy_story() -> str:
    """What transformers continues START with."""
    expected = json.loads(ROOT.joinpath("tests/fixtures/stories260k_expected.json").read_text(encoding="utf-8"))
    return next(text for text in _strings(expected) if text.startswith(START))


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for item in items for text in _strings(item)]


def test_only_the_answer_goes_to_stdout(halfbyte: Any) -> None:
    done = halfbyte("run", "stories260k", START, "--max-tokens", 20, *GREEDY)
    assert done.returncode == 0
    assert done.stdout.startswith(", there was a little girl named Lily.")
    assert done.stdout.endswith("\n")
    assert done.stderr == "note: this model has no chat format; it continues the prompt (--raw hides this note)\n"


def test_an_empty_prompt_is_one(halfbyte: Any, chat_model: Path) -> None:
    done = halfbyte("run", "stories260k", "", "--raw", "--max-tokens", 3, "--json", *GREEDY)
    assert (done.returncode, json.loads(done.stdout)["usage"]["prompt_tokens"]) == (0, 1)
    refused = halfbyte("run", chat_model, "", *GREEDY)
    assert refused.returncode == 2
    assert "--raw continues an empty text" in refused.stderr


def test_json(halfbyte: Any) -> None:
    done = halfbyte("run", "stories260k", START, "--max-tokens", 5, "--json", "--raw", "--logprobs", 2, *GREEDY)
    result = json.loads(done.stdout)
    assert done.stderr == ""
    assert len(result["ids"]) == 5
    assert result["finish_reason"] == "length"
    assert result["usage"] == {"prompt_tokens": 5, "cached_tokens": 0, "completion_tokens": 5}
    assert result["timings"]["decode_tps"] > 0
    assert [entry["id"] for entry in result["logprobs"]] == result["ids"]
    assert all(entry["top"][0][1] == pytest.approx(entry["logprob"]) for entry in result["logprobs"]), "greedy"


def test_verbose_writes_the_cost_to_stderr(halfbyte: Any) -> None:
    done = halfbyte("run", "stories260k", START, "--max-tokens", 3, "--raw", "--verbose", *GREEDY)
    assert "5 prompt tokens in" in done.stderr
    assert done.stderr.endswith("length\n")


def test_a_pipe_is_the_prompt_or_follows_it(halfbyte: Any) -> None:
    options = ("--max-tokens", 5, "--raw", "--json", *GREEDY)
    argument = json.loads(halfbyte("run", "stories260k", "Lily\n\nsaw a dog", *options).stdout)
    for arguments, stdin in ((["Lily"], "saw a dog\n"), (["-"], "Lily\n\nsaw a dog"), ([], "Lily\n\nsaw a dog")):
        piped = json.loads(halfbyte("run", "stories260k", *arguments, *options, stdin=stdin).stdout)
        assert piped["ids"] == argument["ids"]
        assert piped["usage"] == argument["usage"]


def test_stop_and_seed(halfbyte: Any) -> None:
    done = halfbyte("run", "stories260k", START, "--raw", "--stop", "Lily", "--max-tokens", 50, *GREEDY)
    assert done.stdout == ", there was a little girl named \n"
    options = ("--raw", "--seed", 3, "--max-tokens", 12, *REFERENCE)
    answers = {halfbyte("run", "stories260k", START, *options).stdout for _ in range(2)}
    assert len(answers) == 1


def test_the_chat_format_is_used_and_output_is_escaped(halfbyte: Any, chat_model: Path) -> None:
    options = ("--max-tokens", 60, "--json", *GREEDY)
    chat = json.loads(halfbyte("run", chat_model, START, "--system", "Be kind.", *options).stdout)
    raw = json.loads(halfbyte("run", chat_model, START, "--raw", *options).stdout)
    assert chat["usage"]["prompt_tokens"] > raw["usage"]["prompt_tokens"]
    assert "\x1b[2J" in raw["text"], "the hostile token must occur for this test to mean something"
    shown = halfbyte("run", chat_model, START, "--raw", "--max-tokens", 60, *GREEDY).stdout
    assert "\x1b" not in shown
    assert "\\x1b[2J" in shown


def test_system_needs_a_chat_format(halfbyte: Any) -> None:
    done = halfbyte("run", "stories260k", "x", "--system", "y", *REFERENCE)
    assert done.returncode == 2
    assert "--system" in done.stderr


def test_a_prompt_that_does_not_fit_names_both_numbers(halfbyte: Any) -> None:
    done = halfbyte("run", "stories260k", "-", "--context", 8, "--raw", *REFERENCE, stdin="dog " * 50)
    assert done.returncode == 2
    assert "context of 8" in done.stderr
    assert done.stdout == ""


def test_wrong_sampling_values_are_usage_errors(halfbyte: Any) -> None:
    done = halfbyte("run", "stories260k", "x", "--temperature", "-1", *REFERENCE)
    assert done.returncode == 2
    assert "temperature" in done.stderr


WRONG_SHARES = [(("--tensor-split", "3,1"), "gpu_layers puts none there"),
                (("-ngl", "all", "--tensor-split", "0,0"), "shares are numbers")]  # fmt: skip


@pytest.mark.parametrize(("options", "said"), WRONG_SHARES)
def test_wrong_shares_of_gpus_are_usage_errors(options: tuple[str, ...], said: str, halfbyte: Any) -> None:
    """Of a model that would have to be downloaded, too."""
    done = halfbyte("run", "smollm2", "x", "--backend", "cpu", *options)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "tensor_split" in done.stderr and said in done.stderr and not done.stdout


def test_ascii_consoles_get_escapes(halfbyte: Any, chat_model: Path) -> None:
    env = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = halfbyte("run", "stories260k", "日本 é", "--raw", "--seed", 1, "--max-tokens", 30, *REFERENCE, env=env)
    assert done.returncode == 0


def test_a_vocabulary_cannot_run(halfbyte: Any, vocabulary: Path) -> None:
    done = halfbyte("run", vocabulary, "x", *REFERENCE)
    assert done.returncode in (3, 5)
    assert done.stderr.count("\n") == 1


def test_perplexity_is_that_of_llama_cpp(halfbyte: Any, tmp_path: Path) -> None:
    expected = json.loads(ROOT.joinpath("tests/fixtures/perplexity_stories260k.json").read_text(encoding="utf-8"))
    (tmp_path / "text.txt").write_text(expected["text"], encoding="utf-8")
    done = halfbyte("perplexity", "stories260k", "--text", "text.txt", "--context", 64, "--json", *REFERENCE)
    result = json.loads(done.stdout)
    assert result["tokens"] == expected["tokens"]
    for key in ("nll", "ppl", "error"):
        # llama.cpp keeps keys and values in float16; measured difference 7e-5
        assert result[key] == pytest.approx(expected[key], rel=1e-3), key
    one = halfbyte("perplexity", "stories260k", "--text", "text.txt", "--context", 64, "--chunks", 1, *REFERENCE)
    assert f"perplexity {result['windows'][0]:.4f} +-" in one.stdout
    assert done.stderr == one.stderr == ""


@pytest.mark.parametrize(("data", "message"), [(b"too short", "one window needs"), (b"\xff\xfe", "UTF-8")])
def test_perplexity_of_a_wrong_text(data: bytes, message: str, halfbyte: Any, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(data)
    done = halfbyte("perplexity", "stories260k", "--text", "text.txt", *REFERENCE)
    assert done.returncode == 2
    assert message in done.stderr


def test_bench(halfbyte: Any) -> None:
    options = ("--prompt-tokens", 7, "--gen-tokens", 4, "--repeat", 3, "--threads", 1, *REFERENCE)
    result = json.loads(halfbyte("bench", "stories260k", "--json", *options).stdout)
    assert result["prompt_tps"] == sorted(result["prompt_tps_runs"])[1] > 0
    assert result["decode_tps"] == sorted(result["decode_tps_runs"])[1] > 0
    assert (result["threads"], result["repeats"], result["prompt_tokens"], result["gen_tokens"]) == (1, 3, 7, 4)
    assert "tokens/s" in halfbyte("bench", "stories260k", *options).stdout


@needs_kernels
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="a folder that nobody can write to")
def test_a_warmup_that_is_not_kept_is_exit_code_4(halfbyte: Any) -> None:
    done = halfbyte("warmup", "stories260k", env={"HALFBYTE_HOME": "/proc/nope"})
    assert done.returncode == 4
    assert "HALFBYTE_HOME" in done.stderr and not done.stdout


def test_warmup(halfbyte: Any) -> None:
    result = json.loads(halfbyte("warmup", "stories260k", "--json", *REFERENCE).stdout)
    assert result["kernels_compiled"] == 0, "the reference backend compiles nothing"


def test_doctor(halfbyte: Any, compiled_home: Path) -> None:
    report = json.loads(halfbyte("doctor", "--json").stdout)
    assert report["packages"]["numpy"] == np.__version__
    assert report["home"]["path"] == str(compiled_home)
    assert report["home"]["writable"] is True
    assert "error" not in report["cpu"]
    assert [model["name"] for model in report["models"]] == ["stories260k"]
    table = halfbyte("doctor").stdout
    assert "packages numba" in table
    assert str(compiled_home) in table


def test_doctor_survives_a_broken_home(halfbyte: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = halfbyte("doctor", "--json", env={"HALFBYTE_HOME": str(tmp_path / "file" / "below")})
    assert done.returncode == 0
    assert json.loads(done.stdout)["home"].get("writable") in (False, None)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "stories260k", "Once", "--raw", "--temperature", "3", "--top-p", "1", "--min-p", "0"],
        ["bench", "stories260k", "--prompt-tokens", "400", "--repeat", "1000", "--gen-tokens", "100"],
    ],
)
def test_ctrl_c_ends_the_program_with_130(arguments: list[str], environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "halfbyte", *arguments, *REFERENCE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        if arguments[0] == "run":
            child.stdout.read(1)  # the answer has begun
        else:
            time.sleep(2.5)
        begin = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=30)
    assert child.returncode == 130
    assert errors.decode() == "interrupted\n"
    assert time.monotonic() - begin < 2.0, "0.3 s on an idle machine; here with room for a busy one"
