"""Run the notebooks and store what they show: python docs/notebooks/execute.py [weights=FILE].

A variable of a notebook's cell of parameters, such as ``weights``, takes the value that is given.
"""

import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def execute(path: Path, parameters: dict[str, str]) -> None:
    """Run a notebook in a kernel of its own, and write it with its outputs, but without bars and times."""
    notebook = nbformat.read(path, 4)
    client = NotebookClient(notebook, timeout=600, record_timing=False)

    async def assign(cell: Any, **_: Any) -> None:
        for name in cell.metadata.get("nbmake", {}).get("mock", {}):
            if name in parameters:
                await client.kc.execute_interactive(f"{name} = {parameters[name]!r}")

    client.on_cell_executed = assign
    client.execute(cwd=FOLDER)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    for path in sorted(FOLDER.glob("*.ipynb")):
        execute(path, given)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)
