# yolo-prune, AGPL-3.0 license
"""The parts of report.html that are the same in every report: its frame, its style and its script."""

from __future__ import annotations

DOUBT = (
    "The machine was too busy while the models were timed: some milliseconds are not known to 3%. "
    "sweep.csv has the interval of each."
)

PAGE = """\
<!doctype html>
<html lang=en>
<head>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<meta http-equiv=Content-Security-Policy content="default-src 'none'; style-src 'unsafe-inline';
 script-src 'unsafe-inline'; img-src data: blob:">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p class=about>{about}</p>
<section class=recommendation>{recommendation}</section>
{doubt}
<div class=chart>{chart}</div>
<p class=about>Up and to the left is better. The line is the front: nothing that was tried is both faster and better
than what stands on it. Hollow marks are smaller images.</p>
{tables}
<p class=about>{versions}</p>
<script>{script}</script>
</body>
</html>
"""

STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --page: #fff; --line: #d0d7de; --soft: #57606a; --panel: #f6f8fa;
  --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --page: #0d1117; --line: #30363d; --soft: #9da7b1;
  --panel: #161b22; --bad: #ff7b72; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); max-width: 72rem;
  margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; }
.about { color: var(--soft); font-size: .9rem; }
.recommendation { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 0 1rem; }
.chart { height: min(70vh, 34rem); margin: 1rem 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, .command { text-align: left; } td:first-child { white-space: normal; min-width: 9rem; }
th button { all: unset; cursor: pointer; font-weight: 600; } th button:focus-visible { outline: 2px solid #1f6feb; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
code { font-size: .8rem; } .front { color: #1f6feb; font-size: .75rem; border: 1px solid; border-radius: 4px;
  padding: 0 .3rem; } .failed, .doubt { color: var(--bad); }
"""

# Sorts a table by a column, numbers as numbers, what has none last; gives the chart the colours of the page.
SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(other => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = row => row.cells[column].dataset.value;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const order = column ? x - y : x.localeCompare(y, undefined, {numeric: true});
      return up ? order : -order;
    });
    table.tBodies[0].append(...rows);
  }));
}
function colours() {
  const of = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = key => ({[key + ".gridcolor"]: of("--line"), [key + ".zerolinecolor"]: of("--line")});
  Plotly.relayout("chart", {"font.color": of("--text"), ...axis("xaxis"), ...axis("yaxis"),
    "hoverlabel.bgcolor": of("--panel"), "hoverlabel.font.color": of("--text")});
}
colours();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", colours);
"""
