"""Base class of errors that are the user's to mend, and what can go wrong with storage. No torch."""


class InputError(Exception):
    """A file, setting or argument cannot be used; the message is for the user: got, wanted, what to change.

    Commands print the message without a traceback and exit with code 2 (`mmtrain.io.command`).
    """


class StorageError(InputError):
    """A file, folder or object store cannot be read or written."""


class NotFoundError(StorageError):
    """There is no such file, or it may not be seen; asking again would not help."""


class TransientError(StorageError):
    """A failure that may not happen again; `retry_after_seconds` is how long the other side asks to wait."""

    def __init__(self, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RetriesExhaustedError(StorageError):
    """Every try has failed; `last` is the failure of the last one."""

    def __init__(self, message: str, num_tries: int, last: Exception) -> None:
        super().__init__(message)
        self.num_tries, self.last = num_tries, last


class AddressRefusedError(StorageError):
    """An address that nobody has allowed: a private network, another scheme."""


class OptOutError(StorageError):
    """The site says that the file is not for training."""


class TooLargeError(StorageError):
    """More bytes than are allowed."""


class ImageError(ValueError):
    """These bytes are not an image that can be used; the message is one sentence."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason  # one of a few, to be counted
        self.detail = detail  # of this file

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason
