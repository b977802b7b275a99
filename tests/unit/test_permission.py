"""Tile registers are used only when the system gives them."""

from __future__ import annotations

import ctypes

import pytest
from halfbyte.runtime.backends.cpu import features, permission


@pytest.mark.parametrize(("answer", "expected"), [(0, True), (-1, False)])
def test_the_system_is_asked(answer: int, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    class Library:
        def syscall(self, *arguments: int) -> int:
            asked.append(arguments)
            return answer

    monkeypatch.setattr(permission.sys, "platform", "linux")
    monkeypatch.setattr(permission.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Library())
    assert permission.tiles_permitted.__wrapped__() is expected
    assert asked == [(158, 0x1023, 18)]


@pytest.mark.parametrize(("system", "machine"), [("win32", "AMD64"), ("darwin", "arm64"), ("linux", "aarch64")])
def test_other_systems_are_not_asked(system: str, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permission.sys, "platform", system)
    monkeypatch.setattr(permission.platform, "machine", lambda: machine)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: pytest.fail("asked"))
    assert not permission.tiles_permitted.__wrapped__()


@pytest.mark.parametrize(("permitted", "level"), [(True, "amx_bf16"), (False, "avx512_bf16")])
def test_without_them_the_next_level_serves(permitted: bool, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = ",".join(f"+{feature}" for feature in sorted(features.LEVELS[0].needs))
    monkeypatch.setattr(features, "forced_cpu", lambda: ("sapphirerapids", everything))
    monkeypatch.setattr(features, "tiles_permitted", lambda: permitted)
    monkeypatch.setattr(features.platform, "machine", lambda: "x86_64")
    assert features.target.__wrapped__().isa.name == level
