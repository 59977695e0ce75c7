# yolo-prune, AGPL-3.0 license
"""One layer fitted by least squares with a ridge, which is chosen on images that the fit is not made on.

How much a layer's weights may move depends on what it reads: with many images for its weights they can be trusted far,
with few they must be held. So a fourth of the images is held out, the fit is made on the others with each of `RIDGES`,
and the one that comes nearest on the fourth is taken for the fit on all images. That costs little beside the moments of
what is read, which all of them share.
"""

from __future__ import annotations

from typing import Any

import torch

RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of the mean square of what a weight of the layer reads
_EVERY = 4  # image of so many is held out
_FEWEST = 8  # rows to hold out: below that they say nothing, and the ridge is
_COMMON = 0.1


def fit(module: Any, read: torch.Tensor, wanted: torch.Tensor, *, centred: bool = True) -> None:
    """Move a layer's weights to where they make what is wanted of what it reads.

    Args:
        module: a convolution without groups, or a linear layer; where numbers fail it stays as it is.
        read: (n * places, d) of n images. wanted: (n, places, out).
        centred: whether the mean of what it makes does not matter here, for its bias or a norm behind it sets that.
    """
    weight = module.weight
    left = weight.detach().reshape(len(weight), -1).float()
    order, shown = _held_out_last(*wanted.shape[:2])
    a, y = read.float()[order], wanted.float().flatten(0, 1)[order]
    middle_a, middle_y = (a.mean(0), y.mean(0)) if centred else (a.new_zeros(()), a.new_zeros(()))
    a -= middle_a
    error = y - middle_y - a @ left.T
    moved = _by_weights(a, error, shown) if a.shape[1] <= len(a) else _by_places(a, error, shown)
    fitted = left + moved.T
    if not bool((error - a @ moved).norm() <= error.norm()):
        return  # numbers failed, or are not numbers: better the weights that were left
    weight.data.copy_(fitted.reshape(weight.shape))
    if module.bias is not None:
        module.bias.data.copy_(middle_y - fitted @ middle_a)


def _held_out_last(images: int, places: int) -> tuple[torch.Tensor, int]:
    """(images * places,) an order of rows in which those of every fourth image are last, and how many are before them.

    Whole images are held out, for places of one image are alike.
    """
    held = (torch.arange(images) % _EVERY == _EVERY - 1).repeat_interleave(places)
    shown = int((~held).sum())
    return held.int().argsort(stable=True), shown if len(held) - shown >= _FEWEST else len(held)


def _by_weights(a: torch.Tensor, error: torch.Tensor, shown: int) -> torch.Tensor:
    """(d, out) by how much weights move, through the moments of what they read.

    Args:
        a: (rows, d) what they read. error: (rows, out) what is missing. shown: how many rows are not held out.
    """
    square, right = a[:shown].T @ a[:shown], a[:shown].T @ error[:shown]
    if shown == len(a):
        return solve(_ridged(square, _COMMON, len(square)), right)
    held_a, held_error = a[shown:], error[shown:]
    ridge = _nearest([held_error - held_a @ solve(_ridged(square, one, len(square)), right) for one in RIDGES])
    return solve(_ridged(square + held_a.T @ held_a, ridge, len(square)), right + held_a.T @ held_error)


def _by_places(a: torch.Tensor, error: torch.Tensor, shown: int) -> torch.Tensor:
    """The same where there are fewer places than weights, through the products of what is read at places."""
    square, weights, ridge = a @ a.T, a.shape[1], _COMMON
    if shown < len(a):
        own, other = square[:shown, :shown], square[shown:, :shown]
        misses = [error[shown:] - other @ solve(_ridged(own, one, weights), error[:shown]) for one in RIDGES]
        ridge = _nearest(misses)
    return a.T @ solve(_ridged(square, ridge, weights), error)


def _ridged(square: torch.Tensor, ridge: float, weights: int) -> torch.Tensor:
    """A copy with a ridge on its diagonal. weights: over how many of them the trace is the mean."""
    ridged = square.clone()
    ridged.diagonal().add_(ridge * square.diagonal().sum() / weights + 1e-12)
    return ridged


def _nearest(misses: list[torch.Tensor]) -> float:
    """Of `RIDGES` the one that misses least; where numbers fail, the common one."""
    sums = torch.stack([one.square().sum() for one in misses])
    return RIDGES[int(sums.argmin())] if bool(sums.isfinite().all()) else _COMMON


def solve(square: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Solve with a matrix that is symmetric and positive; 0 where it turns out not to be."""
    device = square.device
    if device.type not in ("cpu", "cuda"):  # Apple's MPS knows Cholesky in part, and not in every torch
        square, right = square.cpu(), right.cpu()
    factor, failed = torch.linalg.cholesky_ex(square)
    solution: torch.Tensor = torch.cholesky_solve(right, factor)
    return (torch.zeros_like(solution) if bool(failed) else solution).to(device)
