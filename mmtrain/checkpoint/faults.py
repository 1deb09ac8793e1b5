"""What can be wrong with checkpoints. No torch."""

from mmtrain.io.errors import InputError


class CheckpointError(InputError):
    """A checkpoint that cannot be written or used, in one sentence."""
