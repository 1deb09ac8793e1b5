"""What can be wrong with checkpoints. No torch."""


class CheckpointError(Exception):
    """A checkpoint that cannot be written or used, in one sentence."""
