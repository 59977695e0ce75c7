# yolo-prune, AGPL-3.0 license
"""Memory that runs out: how an error says it, and how what is cached is given back.

PyTorch has a class of its own for some allocators alone. The others raise a RuntimeError, as does a library that is
called without room for its workspace; the host judges by the words too (ultralytics 8.4.190, engine/trainer.py,
`_do_train`, which counts cuBLAS, and two faults of cuDNN that come of a full device).
"""

from __future__ import annotations

import torch

_WORDS = (
    "out of memory",  # CUDA, HIP, XPU, "MPS backend out of memory", ONNX Runtime
    "can't allocate memory",  # "DefaultCPUAllocator: can't allocate memory", on Linux and macOS
    "cannot allocate memory",  # errno 12
    "not enough memory",  # "DefaultCPUAllocator: not enough memory", on Windows
    "unable to allocate",  # numpy
    "failed to allocate memory",
    "bad_alloc",
    "bad allocation",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cudnn_status_internal_error",
    "unable to find an engine",
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that memory ran out, by itself or by what it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
            return True
        if isinstance(error, (RuntimeError, OSError)) and any(word in str(error).lower() for word in _WORDS):
            return True
        error = error.__cause__
    return False


def give_back(device: torch.device) -> None:
    """Hand what a device's allocator caches back to the device, where it has such a cache."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def precise(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in double precision, on the CPU where its device has none (Apple's MPS)."""
    return (tensor if tensor.device.type in ("cpu", "cuda") else tensor.cpu()).double()
