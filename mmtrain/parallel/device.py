"""Which device this rank computes on and in which precision: the only place that asks the hardware."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from mmap import mmap

import torch


def device_of(local_rank: int) -> torch.device:
    """The accelerator with that number on this node, or the CPU where there is none."""
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def device_name(device: torch.device) -> str:
    """The hardware's own name, as tables of peak rates list it; `cpu` on a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def usable_bytes(device: torch.device, local_world_size: int) -> int:
    """Memory that one rank may fill: its accelerator's, or on a CPU its share of the host's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // local_world_size


def has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 products run in hardware there: emulated ones are slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def precision_name(dtype: torch.dtype) -> str:
    """`fp32` or `bf16`, as the config says it."""
    return next(name for name, known in PRECISIONS.items() if known == dtype)


def resolve_precision(wanted: str, device: torch.device) -> torch.dtype:
    """`fp32`, `bf16`, or for `auto` bf16 exactly where the device computes it natively."""
    if wanted == "auto":
        wanted = "bf16" if has_native_bf16(device) else "fp32"
    return PRECISIONS[wanted]


def settle(device: torch.device) -> None:
    """Make `device` current; on a CPU this rank computes with one thread, because its neighbours share the cores."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)


def synchronize(device: torch.device) -> None:
    """Wait for what was launched on `device`."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def pin(memory: mmap) -> None:
    """Lock shared memory, so that a GPU copies from it and to it by itself; needs this rank's device to be set."""
    torch.cuda.check_error(int(torch.cuda.cudart().cudaHostRegister(_address(memory), len(memory), 0)))


def unpin(memory: mmap) -> None:
    """Undo `pin`, once nothing is copied any more."""
    torch.cuda.synchronize()
    torch.cuda.cudart().cudaHostUnregister(_address(memory))


def _address(memory: mmap) -> int:
    return torch.frombuffer(memory, dtype=torch.uint8).data_ptr()


class Aside:
    """Copies of tensors, made on the host beside what their device computes; they see all launched before this was."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._tensors = list(tensors)
        device = next((tensor.device for tensor in tensors if tensor.is_cuda), None)
        self._stream = None if device is None else torch.cuda.Stream(device)
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))

    @property
    def is_on_gpu(self) -> bool:
        """Whether any of the tensors is: copies in locked memory are then made without the processor."""
        return self._stream is not None

    def copy(self, copies: Sequence[torch.Tensor]) -> None:
        """Fill `copies`, of the same shapes and types, and wait until all stand."""
        with torch.no_grad(), nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            # In one call, during which the interpreter is free: the other thread would be held up at each of many.
            torch._foreach_copy_(copies, self._tensors, non_blocking=True)
        if self._stream is not None:
            self._stream.synchronize()
