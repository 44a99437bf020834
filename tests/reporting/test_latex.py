"""LaTeX: tables that pdflatex takes, whatever a label, a layer's name, a photo's id or a note holds."""

import shutil

import pytest
from helpers.pdflatex import typeset

from invrep.reporting.layouts import Cell, table
from invrep.reporting.layouts.latex import latex, tabular

needs_pdflatex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
LETTERS = [chr(code) for code in (*range(0x2700), *range(0xFB00, 0xFFFE), 0x1D49C, 0x1F600, 0xDCFF)]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("‖Φᵢ−Φⱼ‖² / ‖Φ₀‖² (%)", r"\ensuremath{\Vert}\ensuremath{\Phi}$_{i}$\ensuremath{-}\ensuremath{\Phi}$_{j}$"),
        ("relu1_2 & 5 % #3 $x {a}", r"relu1\_2 \& 5 \% \#3 \$x \{a\}"),
        (r"a\b^c~d", r"a{\textbackslash}b{\textasciicircum}c{\textasciitilde}d"),
        ("12.3 ± .4 †", r"12.3 \ensuremath{\pm} .4 {\textdagger}"),
        ("Zürich, e\u0301té, Łódź", r"Z\"urich, \'et\'e, {\L}\'od\'z"),
        ("['relu3', 'relu5']*", "{[}'relu3', 'relu5']{*}"),
        ("two\nlines", "two lines"),
        ("中文 ж", r"\texttt{U+4E2D}\texttt{U+6587} \texttt{U+0436}"),
    ],
)
def test_text_is_translated(text, written):
    assert latex(text).startswith(written)


def test_every_character_is_translated_to_ascii():
    assert all(latex(letter).isascii() for letter in LETTERS)


@needs_pdflatex
def test_every_character_compiles(tmp_path):
    assert typeset("\n\n".join(dict.fromkeys(map(latex, LETTERS))), tmp_path) == ""


@needs_pdflatex
def test_a_table_of_hostile_words_compiles_and_shows_its_note(tmp_path):
    words = ["[a_b]", "*", "x & y", "100 %", "\\end", "^~#${}", "λ = ᵢ²", "line\nbreak", "bad \udcff byte", "a|b"]
    cells = [Cell({"layer": word}, None, "failed", [], 1) for word in words]
    options = {"rows": "layer", "columns": "value", "values": {"error": "‖Φ−Φ₀‖² (%)"}, "note": "5 % & † _ \\ ж"}
    paths = {path.suffix: path for path in table(cells, tmp_path / "table", **options)}
    text = paths[".tex"].read_text(encoding="ascii")
    assert typeset(text, tmp_path) == "" and r"5 \% \& {\textdagger}" in text and text.count("failed") == len(words)
    assert paths[".md"].read_text(encoding="utf-8").count("\n") == 2 + len(words) + 2


@needs_pdflatex
def test_what_does_not_compile_would_be_seen(tmp_path):
    assert "Unicode character" in typeset(tabular(["", "a"], [["b", "c"]], None).replace("c \\\\", "ᵢ \\\\"), tmp_path)
