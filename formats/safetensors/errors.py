"""One exception per way a safetensors file can be wrong; the first eleven are those of the reference implementation.

ModelFileError
|-- SafetensorsError
    |-- HeaderTooSmallError       fewer than the eight bytes that hold the header's length
    |-- HeaderTooLargeError       a header beyond 100 MB
    |-- HeaderLengthError         a header that runs past the end of the file
    |-- HeaderStartError          a header that does not begin with "{"
    |-- HeaderEncodingError       a header that is not UTF-8
    |-- HeaderJsonError           no JSON, a field missing or wrong, a name that stands twice
    |-- DtypeError                a type of numbers that nobody knows
    |-- OffsetError               a tensor ends before it begins, or not where the next one begins: a hole, an overlap
    |-- SizeError                 more or fewer bytes than shape and type need
    |-- ShapeError                a number of elements beyond 2**64
    |-- AlignmentError            numbers of less than a byte that do not fill their last byte
    |-- IncompleteError           tensors that end before or behind the end of the file
"""

from __future__ import annotations

from ..errors import ModelFileError


class SafetensorsError(ModelFileError):
    """Base of everything that can be wrong inside a safetensors file."""


class HeaderTooSmallError(SafetensorsError):
    """The file is too short to hold the length of a header."""


class HeaderTooLargeError(SafetensorsError):
    """The header claims more than 100 MB."""


class HeaderLengthError(SafetensorsError):
    """The header claims more bytes than the file has."""


class HeaderStartError(SafetensorsError):
    """The header does not begin with an object: this is another format."""


class HeaderEncodingError(SafetensorsError):
    """The header is not UTF-8."""


class HeaderJsonError(SafetensorsError):
    """The header is not the JSON object that it should be."""


class DtypeError(SafetensorsError):
    """A type of numbers that is not one of the format's."""


class OffsetError(SafetensorsError):
    """The bytes of a tensor do not begin where those of the one before end."""


class SizeError(SafetensorsError):
    """A tensor's bytes are not as many as its shape and type need."""


class ShapeError(SafetensorsError):
    """A tensor of more elements or bytes than 64 bits can count."""


class AlignmentError(SafetensorsError):
    """A tensor of four- or six-bit numbers does not end at a whole byte."""


class IncompleteError(SafetensorsError):
    """The tensors do not end where the file ends: it is truncated, or something else is hidden behind them."""
