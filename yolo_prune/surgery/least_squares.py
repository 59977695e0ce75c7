# yolo-prune, AGPL-3.0 license
"""One layer fitted by least squares with a ridge."""

from __future__ import annotations

from typing import Any

import torch

_RIDGE = 0.1  # of the mean square of what a weight of the layer reads


def fit(module: Any, read: torch.Tensor, wanted: torch.Tensor) -> None:
    """Move a layer's weights to where they make `wanted` (n, places, out) of `read` (n * places, d)."""
    weight = module.weight
    left = weight.detach().reshape(len(weight), -1).float()
    a, y = read.float(), wanted.flatten(0, 1).float()
    middle_a, middle_y = a.mean(0), y.mean(0)
    a = a - middle_a
    error = y - middle_y - a @ left.T
    if a.shape[1] <= len(a):
        square = a.T @ a
        square.diagonal().add_(_RIDGE * square.diagonal().mean() + 1e-12)
        moved = solve(square, a.T @ error)
    else:  # fewer places than weights: the same solution through the places
        square = a @ a.T
        square.diagonal().add_(_RIDGE * square.diagonal().sum() / a.shape[1] + 1e-12)
        moved = a.T @ solve(square, error)
    fitted = left + moved.T
    if not bool((error - a @ moved).norm() <= error.norm()):
        return  # numbers failed, or are not numbers: better the weights that were left
    weight.data.copy_(fitted.reshape(weight.shape))
    if module.bias is not None:
        module.bias.data.copy_(middle_y - fitted @ middle_a)


def solve(square: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Solve with a matrix that is symmetric and positive; 0 where it turns out not to be."""
    device = square.device
    if device.type not in ("cpu", "cuda"):  # Apple's MPS knows Cholesky in part, and not in every torch
        square, right = square.cpu(), right.cpu()
    factor, failed = torch.linalg.cholesky_ex(square)
    solution: torch.Tensor = torch.cholesky_solve(right, factor)
    return (torch.zeros_like(solution) if bool(failed) else solution).to(device)
