# yolo-prune, AGPL-3.0 license
"""Run every cell of docs/quickstart.ipynb, with little data and few epochs; the suite holds that it carries no outputs.

    python docs/site/run_notebook.py

It runs in a temporary folder, and a cell that fails ends it with that cell's error.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "quickstart.ipynb"
SMALL = "IMAGES, SIDE, EPOCHS = 16, 64, 1"  # for the cell that is tagged "parameters"


def run(path: Path = NOTEBOOK) -> nbformat.NotebookNode:
    """The notebook with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source = SMALL
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}})
        return client.execute()


if __name__ == "__main__":
    start = time.perf_counter()
    done = run()
    pictures = sum("image/png" in output.get("data", {}) for cell in done.cells for output in cell.get("outputs", []))
    if pictures != 2:
        raise SystemExit(f"{NOTEBOOK.name} shows {pictures} pictures, and should show pruning.png and export.png")
    print(f"{NOTEBOOK.name}: every cell ran, in {time.perf_counter() - start:.0f} s")
