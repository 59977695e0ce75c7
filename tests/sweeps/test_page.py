# yolo-prune, AGPL-3.0 license
"""report.html: what stands in it, and what a person sees of it in a real headless Chromium, where there is one."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import browser as browsers
from tests.helpers.browser import Browser
from yolo_prune.sweeps import page, results

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&"


def row(label: str, kind: str, ms: float | None, metric: float | None, **more: Any) -> dict[str, Any]:
    """A row as in front.json."""
    plain = {
        "small": False,
        "own_size": True,
        "base": True,
        "precision": "fp32",
        "steady": True,
        "predicted": False,
        "note": None,
        "bytes": 6_000_000,
        "gflops": 8.2,
        "params": 3_000_000,
        "failed": None,
        "on_front": False,
        "stage": "trained",
    }
    return {
        "name": label,
        "label": label,
        "kind": kind,
        "ms": ms,
        "metric": metric,
        **plain,
        "command": f"yolo train model={label}",
        **more,
    }


def record() -> dict[str, Any]:
    """What a sweep found, made up."""
    rows = [
        row("dense at 640", "dense", 20.0, 0.60),
        row("dense at 512", "dense", 13.0, 0.585, small=True, own_size=False),
        row("pruned flops=50% at 640", "pruned", 11.0, 0.595),
        row("pruned flops=25% at 640", "pruned", 6.5, 0.55, bytes=900_000),
        row("yolo11n at 640", "baseline", 9.0, 0.57),
        row(NASTY, "baseline", 9.5, 0.40),
        row(
            "no luck",
            "pruned",
            None,
            None,
            failed="its process ended with signal 9",
            bytes=None,
            gflops=None,
            params=None,
        ),
    ]
    front = results.mark_front(rows)
    return {
        "rows": rows,
        "front": front,
        "after_cut": [],
        "metric": "mAP50-95",
        "model": "best.pt",
        "data": "my.yaml",
        "epochs": 60,
        "predicted": False,
        "steady": True,
        "device": "onnx on A Board, 1 thread",
        "yolo_prune": "0",
        "versions": {"ultralytics": "8"},
        "recommendation": ["Fastest: this one.", "Most accurate: that one."],
    }


def test_the_picture_is_drawn_of_what_has_figures(tmp_path: Path) -> None:
    results.write_picture(record(), tmp_path / "front.png")
    results.write_picture({**record(), "rows": [], "front": []}, tmp_path / "empty.png")
    assert (tmp_path / "front.png").stat().st_size > (tmp_path / "empty.png").stat().st_size > 1000


def test_no_name_and_no_legend_covers_a_point_or_another_name() -> None:
    rows = [
        row("dense at 96", "dense", 48.5, 0.182),
        row("dense at 64", "dense", 41.0, 0.018, small=True),
        row("pruned flops=50% at 96", "pruned", 42.6, 0.177),
        row("pruned flops=70% at 96", "pruned", 43.3, 0.16),
        row("pruned flops=50% at 64", "pruned", 41.7, 0.0145, small=True),
        row("pruned flops=70% at 64", "pruned", 2.0, 0.011, small=True),
        row("yolo11n at 96", "baseline", 43.4, 0.161),
    ]
    boxes: dict[str, Any] = {}
    points: list[Any] = []

    def look(figure: Any) -> dict[str, str]:
        figure.canvas.draw()
        (axes,) = figure.axes
        boxes.update({text.get_text(): text.get_window_extent() for text in axes.texts if " at " in text.get_text()})
        boxes["legend"] = figure.legends[0].get_window_extent()
        points.extend(axes.transData.transform([(one["ms"], one["metric"]) for one in rows]))
        return {}

    results.picture({**record(), "rows": rows, "front": results.mark_front(rows)}, note=look)
    assert {one["label"] for one in rows if one["kind"] != "pruned"} < boxes.keys()
    for name, box in boxes.items():
        assert not [other for other, it in boxes.items() if other != name and box.overlaps(it)], name
        assert not [point for point in points if box.contains(*point)], name


def test_without_plotly_the_page_is_left_out_and_the_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    monkeypatch.setattr(page.log, "warn", lines.append)
    assert not page.write(record(), tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
    assert 'pip install "yolo-prune[sweep]"' in lines[0]


# The page -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the made-up sweep."""
    pytest.importorskip("plotly")
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert page.write(record(), path)
    return path


def test_it_is_one_file_that_loads_nothing_and_runs_nothing_of_a_users(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert len(text) > 1_000_000, "plotly is in it"
    assert "default-src 'none'" in text
    own = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert re.findall(r"(?:src|href)\s*=\s*[\"']?(?!x onerror)([^\"'\s>]+)", own) == []
    assert "alert(1)</script>" not in text
    assert "Fastest: this one." in own
    assert "onnx on A Board, 1 thread" in own


@pytest.fixture(scope="module")
def window(report: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The page in a browser."""
    if browsers.missing():
        pytest.skip(f"{browsers.missing()} is not installed")
    with browsers.browser(tmp_path_factory.mktemp("browser")) as opened:
        opened.size(1200, 900)
        opened.open(report)
        yield opened
        shots = os.environ.get("YOLO_PRUNE_SHOTS")
        for width, dark in ((1200, False), (1200, True), (390, False)) if shots else ():
            opened.size(width, 1400)
            opened.dark(dark)
            opened.run("window.scrollTo(0, 0)")
            opened.picture(Path(shots or "") / f"report-{width}-{'dark' if dark else 'light'}.png")


def column(window: Browser, number: int) -> list[str]:
    """The texts of a column, from the top."""
    script = "return [...document.querySelectorAll('#table-all tbody tr')].map(r => r.cells[arguments[0]].innerText)"
    return [text.split("\n")[0] for text in window.run(script, number)]


def test_columns_sort_by_number_and_what_has_none_stays_last(window: Browser) -> None:
    assert column(window, 2) == ["6.50", "9.00", "9.50", "11.00", "13.00", "20.00", "-"]
    window.click("#table-all th:nth-child(2) button")
    assert column(window, 1) == ["0.4000", "0.5500", "0.5700", "0.5850", "0.5950", "0.6000", "-"]
    window.click("#table-all th:nth-child(2) button")
    assert column(window, 1) == ["0.6000", "0.5950", "0.5850", "0.5700", "0.5500", "0.4000", "-"]
    assert window.run("return document.querySelector('th:nth-child(2)').getAttribute('aria-sort')") == "descending"


def test_the_pointer_on_a_mark_shows_the_command(window: Browser) -> None:
    script = """
      const chart = document.getElementById('chart'), layout = chart._fullLayout, box = chart.getBoundingClientRect();
      window.scrollTo(0, 0);
      return [box.x + layout.xaxis._offset + layout.xaxis.d2p(arguments[0]),
              box.y + layout.yaxis._offset + layout.yaxis.d2p(arguments[1])]"""
    window.point_at(*window.run(script, 6.5, 0.55))
    end, text = time.monotonic() + 10, ""
    while not text and time.monotonic() < end:
        text = window.run("return document.querySelector('.hoverlayer').textContent")
    assert "pruned flops=25% at 640" in text
    assert "yolo train model=pruned flops=25% at 640" in text
    window.point_at(*window.run(script, 9.5, 0.40))
    assert window.run("return typeof window.alert") == "function", "nothing of a label was run"


def test_it_follows_light_and_dark_and_fits_a_phone(window: Browser) -> None:
    colours = (
        "return [getComputedStyle(document.body).backgroundColor, document.querySelector('.xtick text').style.fill]"
    )
    window.dark(False)
    light = window.run(colours)
    window.dark(True)
    end = time.monotonic() + 10  # the chart is drawn anew a moment later
    while (dark := window.run(colours))[1] == light[1] and time.monotonic() < end:
        time.sleep(0.1)
    assert light[0] == "rgb(255, 255, 255)"
    assert dark[0] == "rgb(13, 17, 23)"
    assert light[1] != dark[1], "the chart's words follow"
    window.size(390, 800)
    end = time.monotonic() + 10  # the chart follows the window a moment later
    while window.run("return document.documentElement.scrollWidth") > 390:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert window.run("return document.querySelector('#chart .main-svg').getBoundingClientRect().width") <= 390


def test_the_console_says_nothing(window: Browser) -> None:
    window.run("return 1")
    assert [entry["message"] for entry in window.log() if entry["level"] in ("SEVERE", "WARNING")] == []
