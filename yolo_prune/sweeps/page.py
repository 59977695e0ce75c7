# yolo-prune, AGPL-3.0 license
"""report.html: the chart (plotly, embedded) and a table that sorts, in one file that needs no network.

Its Content-Security-Policy allows nothing but what stands in the file. What users named is escaped wherever it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from yolo_prune import files, log
from yolo_prune.report import text
from yolo_prune.sweeps import page_parts, results

Row = Mapping[str, Any]


def write(record: Mapping[str, Any], path: Path) -> bool:
    """Write the page.

    Args:
        record: as in front.json.

    Returns:
        False where plotly is not installed, which is said.
    """
    if find_spec("plotly") is None:
        log.warn(
            f'{path.name} is left out, for it is drawn by plotly: pip install "yolo-prune[sweep]" and give the same '
            "command again, nothing is trained twice"
        )
        return False
    files.replace(path, page(record))
    return True


def page(record: Mapping[str, Any]) -> str:
    """The whole page."""
    tables = [_table(record["rows"], record["metric"], "all", bool(record["predicted"]))]
    if record["after_cut"]:
        tables.append("<h2>After the cut alone, before any training</h2>")
        tables.append(_table(record["after_cut"], record["metric"], "cut", bool(record["predicted"])))
    return page_parts.PAGE.format(
        title=escape(f"{record['model']} on {record['data']}"),
        about=escape(results.title(record)),
        style=page_parts.STYLE,
        recommendation="".join(f"<p>{escape(sentence)}</p>" for sentence in record["recommendation"]),
        doubt="" if record["steady"] else f"<p class=doubt>{page_parts.DOUBT}</p>",
        chart=_chart(record),
        tables="\n".join(tables),
        versions=escape(f"yolo-prune {record['yolo_prune']}, ultralytics {record['versions']['ultralytics']}"),
        script=page_parts.SCRIPT,
    )


# The chart ------------------------------------------------------------------------------------------------------------


def _chart(record: Mapping[str, Any]) -> str:
    """The chart as HTML, with plotly's own script in it."""
    import plotly.graph_objects as go
    import plotly.io

    figure = go.Figure()
    front = record["front"]
    if front:
        figure.add_trace(
            go.Scatter(
                x=[one["ms"] for one in front],
                y=[one["metric"] for one in front],
                mode="lines",
                line={"shape": "hv", "color": "#8b949e", "width": 1.5},
                name="front",
                hoverinfo="skip",
            )
        )
    for (kind, small), rows in _groups(record["rows"]).items():
        _, symbol, color, name = results.STYLES[kind]
        figure.add_trace(
            go.Scatter(
                x=[one["ms"] for one in rows],
                y=[one["metric"] for one in rows],
                mode="markers",
                name=name + (", smaller image" if small else ""),
                marker={
                    "symbol": symbol + ("-open" if small else ""),
                    "color": color,
                    "size": 12,
                    "line": {"width": 2, "color": color},
                },
                customdata=[_hover(one) for one in rows],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
    predicted = ", predicted" if record["predicted"] else ""
    figure.update_layout(
        xaxis={"title": {"text": f"ms a call{predicted}"}, "rangemode": "tozero"},
        yaxis={"title": {"text": escape(record["metric"])}},
        margin={"l": 60, "r": 16, "t": 16, "b": 48},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"align": "left"},
    )
    config = {"responsive": True, "displaylogo": False, "displayModeBar": False, "scrollZoom": False}
    return str(
        plotly.io.to_html(
            figure, include_plotlyjs=True, full_html=False, config=config, div_id="chart", default_height="100%"
        )
    )


def _groups(rows: Sequence[Row]) -> dict[tuple[str, bool], list[Row]]:
    """What has a place on the chart, by its mark."""
    groups: dict[tuple[str, bool], list[Row]] = {}
    for row in rows:
        if row["ms"] is not None and row["metric"] is not None and not row["failed"]:
            groups.setdefault((row["kind"], bool(row["small"])), []).append(row)
    return groups


def _hover(row: Row) -> str:
    """What is shown under the pointer: the figures, and the command that makes it, in short lines."""
    lines = [f"<b>{escape(row['label'])}</b>", f"{row['ms']:.2f} ms, {row['metric']:.4f}", *_wrapped(row["command"])]
    return "<br>".join([*lines[:2], *(escape(line) for line in lines[2:])])


_WIDTH = 60  # letters of a line under the pointer


def _wrapped(command: str) -> list[str]:
    lines = [""]
    for word in command.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= _WIDTH:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


# The table ------------------------------------------------------------------------------------------------------------


def _table(rows: Sequence[Row], metric_name: str, name: str, predicted: bool) -> str:
    """A table whose columns sort."""
    heads = ["model", metric_name, "ms" + (" (predicted)" if predicted else ""), "MB", "GFLOPs", "params"]
    cells = "".join(f'<th aria-sort="none"><button type=button>{escape(head)}</button></th>' for head in heads)
    head = f"<thead><tr>{cells}<th class=command>command</th></tr></thead>"
    body = "\n".join(_row(row) for row in sorted(rows, key=_order))
    return f'<div class=wide><table id="table-{name}">{head}<tbody>\n{body}\n</tbody></table></div>'


def _order(row: Row) -> tuple[bool, bool, float]:
    return bool(row["failed"]), row["ms"] is None, row["ms"] or 0.0


def _row(row: Row) -> str:
    mark = ' <span class=front title="nothing is both faster and better">front</span>' if row["on_front"] else ""
    failed = f"<br><span class=failed>{escape(str(row['failed']))}</span>" if row["failed"] else ""
    note = f"<br><small>{escape(str(row['note']))}</small>" if row["note"] else ""
    size = None if row["bytes"] is None else row["bytes"] / 1e6
    return (
        f'<tr><td data-value="{escape(row["label"])}">{escape(row["label"])}{mark}{failed}{note}</td>'
        f"{_cell(row['metric'], '.4f')}{_cell(row['ms'], '.2f')}{_cell(size, '.2f')}{_cell(row['gflops'], '.2f')}"
        f"{_cell(row['params'], ',')}<td class=command><code>{escape(row['command'])}</code></td></tr>"
    )


def _cell(value: float | None, how: str) -> str:
    known = "" if value is None else f' data-value="{value}"'
    return f"<td{known}>{text.figure(value, how)}</td>"
