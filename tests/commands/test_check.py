# yolo-prune, AGPL-3.0 license
"""What `yolo-prune check` says of the `yolo` that is on the PATH."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from yolo_prune.commands import check

ELSEWHERE = "of another environment than this one"


@pytest.mark.parametrize(
    ("folder", "has_user", "words"),
    [
        ("all/Scripts", True, ""),
        ("user/bin", True, ""),
        ("user/bin", False, ELSEWHERE),  # a virtual environment, beside another Python's yolo
        ("python", True, ""),
        ("other/bin", True, ELSEWHERE),
    ],
)
def test_a_yolo_of_another_environment_is_named(
    folder: str,
    has_user: bool,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Windows has scripts beside Python's folder, and pip --user in the user's own."""
    user = sysconfig.get_preferred_scheme("user")
    places = {None: "all/Scripts", user: "user/bin"}
    monkeypatch.setattr(sysconfig, "get_path", lambda _, scheme=None: str(tmp_path / places[scheme]))
    monkeypatch.setattr(check.site, "ENABLE_USER_SITE", has_user)
    monkeypatch.setattr(check.sys, "executable", str(tmp_path / "python" / "python"))
    monkeypatch.setattr(check.shutil, "which", lambda _: str(tmp_path / folder / "yolo"))
    monkeypatch.setattr(check, "_hook", lambda: (True, "live"))
    assert check.check() == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.strip().startswith(words or f"yolo command    {tmp_path / folder / 'yolo'}")
