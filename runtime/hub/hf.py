"""Files from the Hugging Face hub, without ever waiting long for a hub that is not there.

huggingface_hub retries an unreachable server for a long time, so reachability is asked once, with a short limit, first.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...formats.errors import Cancelled, HalfbyteError
from .registry import HubFile
from .types import Cancel, DownloadError, Progress
from .waiting import in_thread

REACHABLE_S = 2.5  # how long an unreachable hub may hold up a command
SHARD = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
MAX_SHARDS = 1000
# Of a checkpoint, beside its weights.
CHECKPOINT_FILES = ("*.json", "*.model", "*.txt", "*.jinja", "README.md", "1_Pooling/*")
# The same weights once more, in the form of those who trained them, and what lies in folders: other models.
IGNORED = ("consolidated*", "*/*.safetensors", "*/*.bin")


def parse(name: str) -> HubFile:
    """`hf:owner/repo/path/to/file.gguf` or `...@revision`. Raises HalfbyteError that shows the form."""
    body, _, revision = name.removeprefix("hf:").partition("@")
    parts = body.split("/")
    if len(parts) < 3 or not all(parts) or ".." in parts or not body.endswith(".gguf"):
        raise HalfbyteError(f"{name!r} is not of the form hf:OWNER/REPO/FILE.gguf or hf:OWNER/REPO/FILE.gguf@REVISION")
    return HubFile("/".join(parts[:2]), "/".join(parts[2:]), revision or "main")


def names_a_file(name: str) -> bool:
    """Whether a name is one of `parse`, and not that of a checkpoint."""
    return name.partition("@")[0].endswith(".gguf") and name.count("/") > 1


def fetch(file: HubFile, *, progress: Progress, cancel: Cancel, folder: Path | None = None) -> Path:
    """The file (and its sibling shards) from the hub's own cache or from the network; the path of the first shard.

    With `folder` the file goes there instead of the hub's cache. Raises DownloadError, Cancelled.
    """
    known = [_cached(file, shard) for shard in shards(file.path)] if folder is None else [None]
    if known[0] is not None and None not in known:
        return known[0]
    _require_reachable()
    paths = [_download(file, shard, folder, progress, cancel) for shard in shards(file.path)]
    return paths[0]


def fetch_checkpoint(name: str, *, progress: Progress, cancel: Cancel, note: Callable[[str], None]) -> Path:
    """The folder of a checkpoint, `hf:OWNER/REPO` or `hf:OWNER/REPO@REVISION`, from the hub's cache or the network.

    What is there already is not downloaded again, and a download that was interrupted goes on; a hub that cannot be
    reached is not needed for what was downloaded before, which `note` is told. Nothing but data comes: weights (as
    safetensors, or where there are none as PyTorch archives), JSON, vocabularies, templates, the card.
    Raises HalfbyteError for another form of name, DownloadError, Cancelled.
    """
    import huggingface_hub

    repo, _, revision = name.removeprefix("hf:").partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise HalfbyteError(f"{name!r} is not of the form hf:OWNER/REPO or hf:OWNER/REPO@REVISION")
    try:
        _require_reachable()
    except DownloadError:
        here = _snapshot(repo, revision)
        if here is None:
            raise
        note(f"the hub cannot be reached: {repo} is taken as it was downloaded before")
        return here
    _utilities().disable_progress_bars()  # ours reports instead

    def download(weights: str) -> Path:
        progress(f"downloading {repo}", 0, 0)
        folder = huggingface_hub.snapshot_download(
            repo, revision=revision or "main", allow_patterns=[weights, *CHECKPOINT_FILES],
            ignore_patterns=[*IGNORED], etag_timeout=5,
        )  # fmt: skip
        return Path(str(folder))

    try:
        folder: Path = in_thread(lambda: download("*.safetensors"), cancel)
        if not any(folder.glob("*.safetensors")):
            folder = in_thread(lambda: download("*.bin"), cancel)
        return folder
    except Cancelled:
        raise
    except Exception as error:  # see _download
        raise DownloadError(f"hf:{repo}: {_one_line(error)}") from error


def _snapshot(repo: str, revision: str) -> Path | None:
    """The folder of a checkpoint that was downloaded before, None if there is none that is complete."""
    import huggingface_hub

    for weights in ("*.safetensors", "*.bin"):
        try:
            folder = huggingface_hub.snapshot_download(
                repo, revision=revision or "main", allow_patterns=[weights, *CHECKPOINT_FILES],
                ignore_patterns=[*IGNORED], local_files_only=True,
            )  # fmt: skip
        except Exception:  # the library has many errors for a folder that is not there, or not complete
            return None
        if any(Path(str(folder)).glob(weights)):
            return Path(str(folder))
    return None


def shards(path: str) -> list[str]:
    """All shards of a split model, first one first; the path itself when it is not split."""
    match = SHARD.match(path)
    if not match:
        return [path]
    count = int(match["count"])
    if not 1 <= count <= MAX_SHARDS:
        raise HalfbyteError(f"{path}: claims {count} shards (allowed: 1 to {MAX_SHARDS})")
    return [f"{match['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


def _cached(file: HubFile, path: str) -> Path | None:
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(file.repo, path, revision=file.revision)
    return Path(found) if isinstance(found, str) else None


def _require_reachable() -> None:
    """Raise DownloadError within REACHABLE_S seconds when the hub does not answer at all."""

    def probe() -> None:
        # any answer will do; its session knows the proxies and certificates that the download will use
        endpoint = importlib.import_module("huggingface_hub.constants").ENDPOINT
        _utilities().get_session().head(endpoint, timeout=REACHABLE_S)

    try:
        in_thread(probe, None, limit=REACHABLE_S)
    except Exception as error:
        raise DownloadError(f"the Hugging Face hub cannot be reached ({_one_line(error)})") from error


def _download(file: HubFile, path: str, folder: Path | None, progress: Progress, cancel: Cancel) -> Path:
    import huggingface_hub

    _utilities().disable_progress_bars()  # ours reports instead
    stage = f"downloading {path.rsplit('/', 1)[-1]}"
    progress(stage, 0, 0)

    def work() -> str:
        return str(
            huggingface_hub.hf_hub_download(file.repo, path, revision=file.revision, local_dir=folder, etag_timeout=5)
        )

    try:
        return Path(in_thread(work, cancel))
    except Cancelled:
        raise
    except Exception as error:  # its errors come from three libraries and differ between its versions
        raise DownloadError(f"hf:{file.repo}/{path}: {_one_line(error)}") from error


def _utilities() -> Any:
    # its stubs do not export these names, whose types changed with its HTTP library
    return importlib.import_module("huggingface_hub.utils")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
