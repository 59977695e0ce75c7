# yolo-prune, AGPL-3.0 license
"""The folder where the host keeps what is a user's own (ultralytics 8.4.190, utils/__init__.py: `USER_CONFIG_DIR`)."""

from __future__ import annotations

from pathlib import Path

from ultralytics.utils import USER_CONFIG_DIR


def user_folder() -> Path:
    """Ours within it; it need not exist yet."""
    return Path(USER_CONFIG_DIR) / "yolo-prune"
