"""Text and tables as LaTeX that pdflatex takes, whatever characters are in them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from pylatexenc.latexencode import RULE_CALLABLE, UnicodeToLatexConversionRule, UnicodeToLatexEncoder

NEEDS = r"% Needs \usepackage[T1]{fontenc} and \usepackage{amssymb,booktabs}."
# Of what pylatexenc translates, the scripts and signs that compile with no more than that: Latin, Greek, punctuation,
# arrows and the usual relations.
_COMMON = re.compile(
    "[ -~\u00a0-\u0148\u014a-\u017f\u0391-\u03c9\u2010\u2012-\u2026\u2030-\u203a\u2044\u20ac\u2122"
    "\u2190-\u2199\u2200-\u221e\u2223-\u222b\u2234-\u223a\u223c\u2243-\u2245\u2248\u2260-\u2265\u2282-\u2287\u2295-\u2299\u22c5\u27e8\u27e9]"
)
_RAISED = {"<sub>": ("_", "sub"), "<super>": ("^", "super")}


def _rule(text: str, at: int) -> tuple[int, str] | None:
    """Return how many characters from a place on are translated here, and to what; None leaves it to pylatexenc."""
    letter = text[at]
    tag, *parts = unicodedata.decomposition(letter).split() or [""]
    if letter in "[*":  # after the end of a line these would be its options
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
    """Return text as LaTeX in ASCII; a letter that pdflatex lacks (of another script, say) by its code, U+4E2D."""
    written: str = _ENCODER.unicode_to_latex(unicodedata.normalize("NFC", text))
    return written


def tabular(top: Sequence[str], body: Sequence[Sequence[str]], note: str | None) -> str:
    """Return a table in the style of booktabs, for a ``table`` environment.

    Args:
        top: the heads of the columns.
        body: the lines.
        note: stands below.
    """
    head, *lines = (f"{' & '.join(map(latex, line))} \\\\" for line in [top, *body])
    inner = "\n".join([r"\toprule", head, r"\midrule", *lines, r"\bottomrule"])
    below = f"\n\n{{\\footnotesize {latex(note)}\\par}}" if note else ""
    return f"{NEEDS}\n\\begin{{tabular}}{{l{'c' * (len(top) - 1)}}}\n{inner}\n\\end{{tabular}}{below}\n"
