"""One exception per way a GGUF file can be wrong.

ModelFileError
|-- FileAccessError           a directory, not a regular file, no permission
|   |-- MissingFileError      there is none; exit code 2, as for every name that does not exist
|-- GGUFError
    |-- NotGGUFError          another format, recognised where possible
    |-- VersionError          version 0, 1 or from the future
    |-- TruncatedError        the file ends inside the header
    |-- CountError            more keys or tensors than the remaining bytes can hold, or than we accept
    |-- HeaderSizeError       the header is larger than we accept
    |-- StringLengthError     a string longer than the remaining bytes
    |-- ArrayLengthError      an array longer than the remaining bytes
    |-- KeyNameError          a key that is empty, too long, not UTF-8, or holds a NUL
    |-- DuplicateKeyError
    |-- ValueTypeError        unknown value type
    |-- NestedArrayError      an array of arrays
    |-- BoolError             a bool byte that is neither 0 nor 1
    |-- AlignmentError        general.alignment is not a UINT32 power of two in range
    |-- TensorNameError       empty, too long, not UTF-8, or holds a NUL
    |-- DuplicateTensorError
    |-- TensorShapeError      number of dimensions, negative dimension, element count not below 2**63
    |-- TensorTypeError       unknown or removed tensor type
    |-- TensorBlockError      row length is not a multiple of the type's block
    |-- TensorOffsetError     offset differs from the running padded sum
    |-- TensorDataError       tensor data lies outside the file: the file is truncated
    |-- SplitError            a set of shards is incomplete or contradicts itself
    |-- ContainerError        keys about tensors of bitsandbytes' kinds contradict each other or the tensors
    |-- MetadataError         a key the model needs is missing or has the wrong type

HalfbyteError
|-- WriteError                the caller asked the writer for something a GGUF file cannot hold
"""

from __future__ import annotations

from ..errors import HalfbyteError, ModelFileError


class FileAccessError(ModelFileError):
    """The path cannot be opened as a file."""


class MissingFileError(FileAccessError):
    """There is nothing at the path."""

    exit_code = 2


class GGUFError(ModelFileError):
    """Base of everything that can be wrong inside a GGUF file."""


class NotGGUFError(GGUFError):
    """The first bytes are not "GGUF". The hint says what the file looks like."""


class VersionError(GGUFError):
    """A GGUF version that this reader does not know."""


class TruncatedError(GGUFError):
    """The file ends inside a header field."""


class CountError(GGUFError):
    """n_kv or n_tensors cannot be true for a file of this size, or exceeds the limit."""


class HeaderSizeError(GGUFError):
    """The header runs past the limit for headers."""


class StringLengthError(GGUFError):
    """A string claims more bytes than remain."""


class ArrayLengthError(GGUFError):
    """An array claims more elements than fit into the remaining bytes."""


class KeyNameError(GGUFError):
    """A metadata key is empty, too long, not UTF-8 or holds a NUL."""


class DuplicateKeyError(GGUFError):
    """The same metadata key occurs twice."""


class ValueTypeError(GGUFError):
    """An unknown metadata value type."""


class NestedArrayError(GGUFError):
    """An array of arrays. No writer makes them, and recursion on input is how parsers die."""


class BoolError(GGUFError):
    """A bool stored as something else than 0 or 1."""


class AlignmentError(GGUFError):
    """general.alignment is not a UINT32 power of two in range."""


class TensorNameError(GGUFError):
    """A tensor name is empty, too long, not UTF-8 or holds a NUL."""


class DuplicateTensorError(GGUFError):
    """The same tensor name occurs twice."""


class TensorShapeError(GGUFError):
    """Impossible dimensions."""


class TensorTypeError(GGUFError):
    """An unknown or removed tensor type."""


class TensorBlockError(GGUFError):
    """The row length is not a multiple of the block size of the type."""


class TensorOffsetError(GGUFError):
    """A tensor does not start where the one before it ends."""


class TensorDataError(GGUFError):
    """Tensor data lies (partly) outside the file."""


class SplitError(GGUFError):
    """A set of shards is incomplete or its parts contradict each other."""


class ContainerError(GGUFError):
    """What keys say about tensors that are stored as bytes cannot be true."""


class MetadataError(GGUFError):
    """A metadata key that is needed is missing or has another type than its meaning requires."""


class WriteError(HalfbyteError):
    """The writer was asked for something that a GGUF file cannot hold, or was used out of order."""


class WriteDenied(WriteError):
    """The system does not let this user write there."""

    exit_code = 4
