"""Base class of errors that are the user's to mend. No torch."""


class InputError(Exception):
    """A file, setting or argument cannot be used; the message is for the user: got, wanted, what to change.

    Commands print the message without a traceback and exit with code 2 (`mmtrain.io.command`).
    """


class StorageError(InputError):
    """A file, folder or object store cannot be read or written."""
