"""Convert text and tables with any characters into LaTeX that pdflatex compiles."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from pylatexenc.latexencode import RULE_CALLABLE, UnicodeToLatexConversionRule, UnicodeToLatexEncoder

NEEDS = r"% Needs \usepackage[T1]{fontenc} and \usepackage{amssymb,booktabs}."
# Characters whose translation by pylatexenc compiles with these packages: Latin, Greek, punctuation, arrows and the
# usual relations.
_COMMON = re.compile(
    "[ -~\u00a0-\u0148\u014a-\u017f\u0391-\u03c9\u2010\u2012-\u2026\u2030-\u203a\u2044\u20ac\u2122"
    "\u2190-\u2199\u2200-\u221e\u2223-\u222b\u2234-\u223a\u223c\u2243-\u2245\u2248\u2260-\u2265\u2282-\u2287\u2295-\u2299\u22c5\u27e8\u27e9]"
)
_RAISED = {"<sub>": ("_", "sub"), "<super>": ("^", "super")}


def _rule(text: str, at: int) -> tuple[int, str] | None:
    """Return the number of characters translated at ``text[at]`` and their LaTeX; None leaves them to pylatexenc."""
    letter = text[at]
    tag, *parts = unicodedata.decomposition(letter).split() or [""]
    if letter in "[*":  # after \\ LaTeX would read these as its options
        return 1, f"{{{letter}}}"
    if unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp"):
        return 1, " "
    plain = "".join(chr(int(part, 16)) for part in parts) if tag.startswith("<") else ""
    if tag in _RAISED:
        sign, name = _RAISED[tag]
        return 1, f"${sign}{{{plain}}}$" if plain.isascii() else rf"\text{name}script{{{latex(plain)}}}"
    if _COMMON.match(letter):
        return None
    return 1, latex(plain) if plain else rf"\texttt{{U+{ord(letter):04X}}}"


_ENCODER = UnicodeToLatexEncoder(
    conversion_rules=[UnicodeToLatexConversionRule(RULE_CALLABLE, _rule), "defaults"],
    unknown_char_policy="unihex",
    unknown_char_warning=False,
)


def latex(text: str) -> str:
    """Return text as LaTeX in ASCII; a character that pdflatex lacks becomes its code, such as U+4E2D."""
    written: str = _ENCODER.unicode_to_latex(unicodedata.normalize("NFC", text))
    return written


def tabular(top: Sequence[str], body: Sequence[Sequence[str]], note: str | None) -> str:
    """Return a LaTeX ``tabular`` in the style of booktabs.

    Args:
        top: heads of the columns.
        body: lines of cells.
        note: text below the table; None: no text.
    """
    head, *lines = (f"{' & '.join(map(latex, line))} \\\\" for line in [top, *body])
    inner = "\n".join([r"\toprule", head, r"\midrule", *lines, r"\bottomrule"])
    below = f"\n\n{{\\footnotesize {latex(note)}\\par}}" if note else ""
    return f"{NEEDS}\n\\begin{{tabular}}{{l{'c' * (len(top) - 1)}}}\n{inner}\n\\end{{tabular}}{below}\n"
