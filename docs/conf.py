"""The site, `make docs`: Sphinx's settings, and the page of experiments, which is made from their configs."""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "invrep"
author = "The invrep developers"
project_copyright = author
version = release = installed("invrep")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # docs/notebooks/execute.py stores what the notebooks show
exclude_patterns = ["_build"]

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_include_init_with_doc = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "invrep"
html_static_path = ["_static"]
html_css_files = ["invrep.css"]
html_show_sphinx = False
html_copy_source = html_show_sourcelink = False
pygments_style, pygments_dark_style = "friendly", "github-dark"


def experiments(folder: Path = ROOT / "conf" / "experiment") -> Iterator[tuple[str, str]]:
    """Yield name and description of every experiment: its file's first comment."""

    def order(path: Path) -> list[Any]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]

    for path in sorted(folder.rglob("*.yaml"), key=order):
        if path.parent.name == "base":
            continue  # what several have in common
        comment = re.match(r"(?:# @package.*\n)?((?:#.*\n)*)", path.read_text())[1]
        name = path.relative_to(folder).with_suffix("").as_posix()
        yield name, " ".join(line.removeprefix("#").strip() for line in comment.splitlines())


def experiments_as_markdown() -> str:
    """Return a section for each folder of experiments, with the command of each."""
    sections: dict[str, list[str]] = {}
    for name, description in experiments():
        block = f"{description}\n\n```bash\ninvrep experiment={name}\n```\n"
        sections.setdefault(name.rpartition("/")[0], []).append(block)
    return "\n".join(f"### {title}\n\n" + "\n".join(blocks) for title, blocks in sections.items())


def setup(app: Any) -> None:
    """Fill in the experiments; take the bars of ‖·‖ and |·| in docstrings for what they are."""

    def fill(app: Any, name: str, source: list[str]) -> None:
        source[0] = source[0].replace("<!-- experiments -->", experiments_as_markdown())

    def bars(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
        lines[:] = [line if "`" in line else line.replace("|", r"\|") for line in lines]

    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", bars, priority=900)
