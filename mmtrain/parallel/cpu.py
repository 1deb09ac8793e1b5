"""What megatron-core asks of CUDA, answered where there is none. The one file that changes megatron-core.

It places scratch tensors with `torch.cuda.current_device()` or `device="cuda"`. Without a GPU those calls fail, so they
are answered with the CPU, once, and only where CUDA is missing. And its schedules call a `backward_step` that works
behind an engine's back; `using_backward_step` puts another in its place for one run of a schedule. Both know the source
of the versions named here, and refuse any other.
"""

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator
from typing import Any

import torch

TESTED_MEGATRON = ("0.16.", "0.19.")


def refuse_untested_megatron() -> None:
    """RuntimeError unless the installed megatron-core is one whose source these changes know."""
    version = importlib.metadata.version("megatron-core")
    if not version.startswith(TESTED_MEGATRON):
        raise RuntimeError(
            f"megatron-core {version} was never run with mmtrain; install one of the versions "
            f"{' or '.join(tested + 'x' for tested in TESTED_MEGATRON)}"
        )


class _TorchOnCpu:
    """Stands in for `torch` inside megatron's schedules: what they would place on CUDA is placed on the CPU."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def zeros(*shape: Any, **options: Any) -> torch.Tensor:
        return torch.zeros(*shape, **{**options, "device": "cpu"})


def answer_for_cuda() -> None:
    """Let megatron-core run without CUDA; does nothing where CUDA is there. RuntimeError on an untested version."""
    refuse_untested_megatron()
    if torch.cuda.is_available():
        return
    from megatron.core.pipeline_parallel import schedules

    torch.cuda.current_device = lambda: torch.device("cpu")
    schedules.torch = _TorchOnCpu()


@contextlib.contextmanager
def using_backward_step(backward_step: Callable[..., Any]) -> Iterator[None]:
    """While it lasts, megatron's schedules call this instead of their own `backward_step`."""
    from megatron.core.pipeline_parallel import schedules

    own = schedules.backward_step
    schedules.backward_step = backward_step
    try:
        yield
    finally:
        schedules.backward_step = own
