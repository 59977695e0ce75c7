# yolo-prune, AGPL-3.0 license
"""What `prune_sparsity=` says: a share of all weights that go, or n of every m that stay. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Pattern:
    """Which weights go: `keep` of every `of` along the inputs stay, or, where `of` is None, `share` of all go."""

    share: float
    keep: int | None = None
    of: int | None = None

    def __str__(self) -> str:
        return f"{self.share!r}" if self.of is None else f"{self.keep}:{self.of}"


def parse(text: str) -> Pattern:
    """Read `0.5` (half of the weights go) or `2:4` (two of every four stay).

    Raises:
        ValueError: it is neither, or leaves all or nothing.
    """
    pair = re.fullmatch(r"\s*([0-9]{1,9})\s*:\s*([0-9]{1,9})\s*", text)
    if pair:
        keep, of = int(pair[1]), int(pair[2])
        if not 0 < keep < of <= 64:
            raise ValueError(text)
        return Pattern(1 - keep / of, keep, of)
    share = float(text)
    if not 0 < share < 1:
        raise ValueError(text)
    return Pattern(share)
