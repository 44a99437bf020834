"""LaTeX, set by pdflatex as an author would."""

import re
import shutil
import subprocess
from pathlib import Path

from invrep.reporting.layouts.latex import NEEDS

PREAMBLE = "\\documentclass{article}\n" + "\n".join(re.findall(r"\\usepackage\S+}", NEEDS))


def typeset(text: str, folder: Path) -> str:
    """Return what pdflatex finds wrong with a text, a line for each error; nothing where there is no pdflatex."""
    if shutil.which("pdflatex") is None:
        return ""
    (folder / "paper.tex").write_text(f"{PREAMBLE}\n\\begin{{document}}\n{text}\n\\end{{document}}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-file-line-error", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="latin-1", timeout=120)
    wrong = re.findall(r"^\./paper\.tex:\d+: .*$", done.stdout, re.MULTILINE)
    assert wrong or done.returncode == 0, done.stdout
    return "\n".join(wrong)
