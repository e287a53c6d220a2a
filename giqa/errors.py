"""The error tree: every failure has a stable code, the item it concerns and a remedy.

::

    GiqaError                     code
    ├── UsageError                usage
    ├── MissingExtraError         missing_extra
    ├── InputError
    │   ├── NotFoundError             not_found
    │   ├── PermissionDeniedError     permission_denied
    │   ├── UnreadableError           unreadable
    │   ├── EmptyError                empty
    │   ├── UnsupportedFormatError    unsupported_format
    │   ├── TruncatedError            truncated
    │   ├── CorruptError              corrupt
    │   ├── TooManyBytesError         too_many_bytes
    │   ├── TooManyPixelsError        too_many_pixels
    │   ├── TooManyFramesError        too_many_frames
    │   ├── UnsupportedCodecError     unsupported_codec
    │   ├── NoFramesError             no_frames
    │   └── ShapeMismatchError        shape_mismatch
    ├── ServerError
    │   ├── ServerUnavailableError    server_unavailable
    │   ├── DeadlineExceededError     deadline_exceeded
    │   ├── OverloadedError           overloaded
    │   ├── ServerRefusedError        server_refused
    │   └── ServerFailedError         server_failed
    ├── ArtefactError
    │   ├── BundleInvalidError        bundle_invalid
    │   └── EngineMismatchError       engine_mismatch
    ├── BatchError
    │   ├── PlanInvalidError          plan_invalid
    │   ├── FolderInUseError          folder_in_use
    │   └── WorkerFailedError         worker_failed
    ├── TableInvalidError         table_invalid
    ├── OutOfMemoryError          out_of_memory
    ├── UnwritableError           unwritable
    └── StorageFullError          storage_full

The same codes stand in exceptions, in result rows (`error.code`), in logs and in Triton's error
messages. Codes are never renamed; new ones may come.
"""

from __future__ import annotations

from typing import ClassVar


class GiqaError(Exception):
    """Base of all errors raised by giqa.

    Args:
        message: what is wrong, in one sentence.
        item: the file, URI, tensor or option it concerns.
        remedy: what to do about it; the class's own remedy unless given.

    Attributes:
        code: stable machine-readable name of the error.
        message: what is wrong.
        item: what it concerns; empty if nothing in particular.
        remedy: what to do about it.
    """

    code: ClassVar[str] = "error"
    default_remedy: ClassVar[str] = ""

    def __init__(self, message: str, *, item: str = "", remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.item = item
        self.remedy = self.default_remedy if remedy is None else remedy

    def __str__(self) -> str:
        """`[code] item: message (remedy)`."""
        where = f"{self.item}: " if self.item else ""
        what = f" ({self.remedy})" if self.remedy else ""
        return f"[{self.code}] {where}{self.message}{what}"

    def __reduce__(self) -> tuple[object, ...]:
        """Keep item and remedy across process borders."""
        return _rebuild, (type(self), self.message, self.item, self.remedy)


def _rebuild(cls: type[GiqaError], message: str, item: str, remedy: str) -> GiqaError:
    return cls(message, item=item, remedy=remedy)


class UsageError(GiqaError):
    """An option or argument does not make sense."""

    code = "usage"
    default_remedy = "see --help"


class MissingExtraError(GiqaError):
    """A package of an optional extra is not installed."""

    code = "missing_extra"

    def __init__(
        self, message: str, *, extra: str = "", item: str = "", remedy: str | None = None
    ) -> None:
        if remedy is None:
            remedy = f"pip install 'giqa[{extra}]'"
        super().__init__(message, item=item, remedy=remedy)


class InputError(GiqaError):
    """One item cannot be scored; others are not affected."""


class NotFoundError(InputError):
    """The path does not exist, or a directory, pattern, list or table holds no input."""

    code = "not_found"
    default_remedy = "check the path"


class PermissionDeniedError(InputError):
    """The path may not be read by this user."""

    code = "permission_denied"
    default_remedy = "make the file readable for this user"


class UnreadableError(InputError):
    """The path is not a regular file (FIFO, socket, device, directory) or reading it failed."""

    code = "unreadable"
    default_remedy = "give a regular file"


class EmptyError(InputError):
    """The file has no bytes."""

    code = "empty"
    default_remedy = "the file has no content; write it again"


class UnsupportedFormatError(InputError):
    """The bytes are not of an image format that giqa reads."""

    code = "unsupported_format"
    default_remedy = "convert it to JPEG, PNG or another supported format"


class TruncatedError(InputError):
    """The file ends before its image does."""

    code = "truncated"
    default_remedy = "the file is incomplete; transfer it again"


class CorruptError(InputError):
    """The header or the image data cannot be decoded."""

    code = "corrupt"
    default_remedy = "the file is damaged; write it again from its source"


class TooManyBytesError(InputError):
    """The file is larger than the limit."""

    code = "too_many_bytes"
    default_remedy = "raise the limit on bytes if the file is trusted"


class TooManyPixelsError(InputError):
    """The header announces more pixels than the limit."""

    code = "too_many_pixels"
    default_remedy = "raise the limit on pixels if the file is trusted"


class TooManyFramesError(InputError):
    """The file has more frames or pages than the limit."""

    code = "too_many_frames"
    default_remedy = "raise the limit on frames, or score it as a video"


class UnsupportedCodecError(InputError):
    """The container is known, its codec or colour transfer is not."""

    code = "unsupported_codec"
    default_remedy = "re-encode it with a supported codec"


class NoFramesError(InputError):
    """The video has no decodable frame in the chosen range."""

    code = "no_frames"
    default_remedy = "check the range and the stream"


class ShapeMismatchError(InputError):
    """A tensor has another dtype or shape than the contract's."""

    code = "shape_mismatch"
    default_remedy = "see `giqa bundle show` for the sizes"


class ServerError(GiqaError):
    """The inference server failed, not the item."""


class ServerUnavailableError(ServerError):
    """The server cannot be reached or is not ready."""

    code = "server_unavailable"
    default_remedy = "check the address and that `giqa serve` is ready"


class DeadlineExceededError(ServerError):
    """The answer did not come within the deadline."""

    code = "deadline_exceeded"
    default_remedy = "raise the deadline or lower the load"


class OverloadedError(ServerError):
    """The server's queue is full."""

    code = "overloaded"
    default_remedy = "lower the load or add instances"


class ServerRefusedError(ServerError):
    """The server does not let this client in."""

    code = "server_refused"
    default_remedy = "give the token or key that the server was started with"


class ServerFailedError(ServerError):
    """The server failed inside, or its answer is not what its contract says."""

    code = "server_failed"
    default_remedy = "see the server's log"


class ArtefactError(GiqaError):
    """A bundle or engine cannot be used."""


class BundleInvalidError(ArtefactError):
    """The bundle is incomplete, altered, of an unknown schema, or fails its self-test."""

    code = "bundle_invalid"
    default_remedy = "get the bundle again; `giqa bundle verify` tells what is wrong"


class EngineMismatchError(ArtefactError):
    """The engine or precision does not fit this machine or bundle."""

    code = "engine_mismatch"
    default_remedy = "choose another precision or rebuild the engine here"


class BatchError(GiqaError):
    """A batch run cannot begin or go on; what it wrote is kept."""


class PlanInvalidError(BatchError):
    """The plan of a batch run is missing, damaged, or what it names has changed since."""

    code = "plan_invalid"
    default_remedy = "begin again in an empty folder: `giqa batch run`"


class FolderInUseError(BatchError):
    """Another run works in this output folder."""

    code = "folder_in_use"
    default_remedy = "wait until it ends, or give another folder"


class WorkerFailedError(BatchError):
    """Workers of a batch run died again and again."""

    code = "worker_failed"
    default_remedy = "see the cluster's logs, then `giqa batch resume`"


class TableInvalidError(GiqaError, ValueError):
    """A table of opinion scores cannot be used; nothing of it was.

    It is a `ValueError`, too, as callers expect of a function that is given wrong values.
    """

    code = "table_invalid"
    default_remedy = "correct the table"


class OutOfMemoryError(GiqaError):
    """The process was given no memory for this."""

    code = "out_of_memory"
    default_remedy = "give the process more memory, or lower the batch and the limit on pixels"


class UnwritableError(GiqaError):
    """A file cannot be written: a directory, no such folder, not permitted, or writing failed."""

    code = "unwritable"
    default_remedy = "give another path"


class StorageFullError(GiqaError):
    """Writing failed because the storage is full."""

    code = "storage_full"
    default_remedy = "free space and run again"


def all_errors() -> dict[str, type[GiqaError]]:
    """List every concrete error class by its code, in the order of the tree."""
    found: dict[str, type[GiqaError]] = {}

    def walk(cls: type[GiqaError]) -> None:
        if "code" in vars(cls) and cls is not GiqaError:
            found[cls.code] = cls
        for child in cls.__subclasses__():
            if child.__module__ == __name__:
                walk(child)

    walk(GiqaError)
    return found
