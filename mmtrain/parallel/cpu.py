"""What megatron-core asks of CUDA, answered where there is none.

megatron-core places its scratch tensors with `torch.cuda.current_device()`. Without a GPU that call fails, so it is
answered with the CPU device here, once, and only where CUDA is missing. The version check keeps the answer to what
was read in the source of these versions.
"""

import importlib.metadata

import torch

TESTED_MEGATRON = ("0.16.", "0.19.")


def answer_for_cuda() -> None:
    """Let megatron-core run without CUDA; does nothing where CUDA is there. RuntimeError on an untested version."""
    if torch.cuda.is_available():
        return
    version = importlib.metadata.version("megatron-core")
    if not version.startswith(TESTED_MEGATRON):
        raise RuntimeError(
            f"megatron-core {version} was never run on a CPU with mmtrain; install one of the versions "
            f"{' or '.join(tested + 'x' for tested in TESTED_MEGATRON)}"
        )
    torch.cuda.current_device = lambda: torch.device("cpu")
