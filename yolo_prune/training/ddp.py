# yolo-prune, AGPL-3.0 license
"""Several processes that train one model (DDP): what the first of them decides reaches all, and so do failures."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from yolo_prune.errors import PruneError

T = TypeVar("T")


def devices(settings: Mapping[str, Any]) -> list[str]:
    """The devices that the host's `device=` names: each has a process where there are several."""
    return [part for part in str(settings.get("device") or "").strip("[]() ").split(",") if part.strip()]


def from_first(decide: Callable[[], T]) -> T:
    """What the first rank decides, on every rank; in a single process, what it decides itself.

    Ranks differ in their BatchNorm statistics (ultralytics 8.4.190 does not synchronise buffers in training), so scores
    taken on each would differ too, and with them the widths.

    Args:
        decide: called on rank 0 alone; its result must pickle. Tensors in it are on the CPU on the other ranks: they
            would be put on the device of rank 0 there.

    Raises:
        Exception: whatever `decide` raised, on every rank, so that none waits for one that is gone; of one that does
            not pickle, or of a result that does not, the others raise a PruneError with its words.
    """
    if not several():
        return decide()
    outcome: Any = None
    failed: Exception | None = None
    packed: list[Any] = [None, None]
    if distributed.get_rank() == 0:
        try:
            outcome = decide()
            packed[0] = _packed(outcome)
        except Exception as error:
            failed = error
            packed[1] = _packed_error(error)
    distributed.broadcast_object_list(packed, src=0)
    if failed is not None:
        raise failed
    if packed[1] is not None:
        raise pickle.loads(packed[1])  # of rank 0 of this very run
    result: T = outcome if distributed.get_rank() == 0 else torch.load(io.BytesIO(packed[0]), "cpu", weights_only=False)
    return result


def by_first(work: Callable[[], object]) -> None:
    """Have the first rank do something, such as writing a file; every rank hears whether it went well.

    Args:
        work: called on rank 0 alone; it must wait for no other.

    Raises:
        Exception: as of `from_first`.
    """

    def without_result() -> None:
        work()

    from_first(without_result)


def _packed(outcome: Any) -> bytes:
    """Something in bytes, tensors with their device aside."""
    buffer = io.BytesIO()
    torch.save(outcome, buffer)
    return buffer.getvalue()


def _packed_error(error: Exception) -> bytes:
    """An exception in bytes that give it back; one that does not pickle, or not back, becomes a PruneError."""
    try:
        packed = pickle.dumps(error)
        pickle.loads(packed)
        return packed
    except Exception:
        return pickle.dumps(PruneError(f"process 0 failed: {type(error).__name__}: {error}"))


def each(work: Callable[[], T]) -> T:
    """Do it on every rank; where it fails on one, all raise, so that none waits for one that is gone.

    Raises:
        Exception: of this rank, or, where it failed on others alone, a PruneError with what the first of them said.
    """
    if not several():
        return work()
    outcome: Any = None
    failed: Exception | None = None
    try:
        outcome = work()
    except Exception as error:
        failed = error
    words: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(words, None if failed is None else f"{type(failed).__name__}: {failed}")
    if failed is not None:
        raise failed
    for rank, said in enumerate(words):
        if said is not None:
            raise PruneError(f"process {rank} of {len(words)} failed: {said}")
    result: T = outcome
    return result


def is_first() -> bool:
    """Whether this process decides."""
    return not several() or distributed.get_rank() == 0


def same(model: nn.Module) -> None:
    """Give every rank the tensors of the first one's model; nothing in a single process."""
    if several():
        for tensor in (*model.parameters(), *model.buffers()):
            distributed.broadcast(tensor.data, src=0)


def several() -> bool:
    """Whether this process trains with others."""
    return distributed.is_available() and distributed.is_initialized()
