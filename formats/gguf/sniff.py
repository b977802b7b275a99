"""Recognise files that are not GGUF, to tell the user what they have and what to do."""

from __future__ import annotations

# What somebody can do who has a model in another format.
GET_GGUF = "Download the model as a GGUF file, or make one of its folder: halfbyte convert FOLDER --type Q4_K_M"

# (first bytes, what it is, what to do). Longest prefixes first where one begins another.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a git-LFS pointer, not the model", "Run `git lfs pull`, or download the file again"),
    (b"<!doctype html", "an HTML page", "The download returned a web page; check the address and your access rights"),
    (b"<html", "an HTML page", "The download returned a web page; check the address and your access rights"),
    (b"<?xml", "an XML document", "The download returned an error page; check the address and your access rights"),
    (b"entry not found", "the text of a failed download", "Check the file name in the repository"),
    (b"repository not found", "the text of a failed download", "Check the repository name and your access rights"),
    (b"invalid username or password", "the text of a failed download", "Log in to the model hub and download again"),
    (b"access to model", "the text of a refused download", "Accept the model's licence, log in, download again"),
    (b"pk\x03\x04", "a zip archive, perhaps a PyTorch checkpoint (.bin, .pt)", GET_GGUF),
    (b"\x1f\x8b", "a gzip file", "Unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "Unpack it first"),
    (b"\xfd7zxz", "an xz file", "Unpack it first"),
    (b"bzh", "a bzip2 file", "Unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "Unpack it first"),
    (b"\x89hdf", "an HDF5 file", GET_GGUF),
    (b"lmgg", "an old GGML file (2022-2023)", "Download a GGUF version of the model or convert the original again"),
    (b"fmgg", "an old GGMF file (2023)", "Download a GGUF version of the model or convert the original again"),
    (b"tjgg", "an old GGJT file (2023)", "Download a GGUF version of the model or convert the original again"),
    (b"algg", "an old GGLA adapter (2023)", "Convert the original adapter again"),
    (b"fugg", "a GGUF file with a byte-swapped magic", "A broken big-endian converter wrote it; convert again"),
    (b"\x7felf", "a program, not a model", "Give the path of a .gguf file"),
    (b"mz", "a program, not a model", "Give the path of a .gguf file"),
    (b"{", "JSON text, perhaps of a Hugging Face checkpoint", GET_GGUF),
)
_PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))


def describe_foreign(head: bytes, size: int) -> tuple[str, str]:
    """Say what a non-GGUF file beginning with `head` (up to 64 bytes) of `size` bytes is: (description, next step)."""
    if size == 0:
        return "the file is empty", "The download or conversion did not run; get the file again"
    lowered = head.lower().removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    for signature, what, step in _SIGNATURES:
        if lowered.startswith(signature):
            return f"this is {what}", step
    if head.startswith(_PICKLES):
        return "this is a Python pickle, perhaps an old PyTorch checkpoint", GET_GGUF
    if len(head) >= 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return "this is a safetensors file", GET_GGUF
    if not any(head):
        return "the file begins with zeros", "An interrupted download looks like this; download it again"
    return "not a GGUF file", "Give the path of a .gguf file"
