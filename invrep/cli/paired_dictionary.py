"""Fit the paired dictionary of the baseline HOGgle to photos from the command line."""

from __future__ import annotations

from collections.abc import Sequence

from invrep.cli.arguments import arguments
from invrep.cli.sentences import one_sentence
from invrep.cli.vocabulary import MOST_TOLD, composed
from invrep.errors import InvrepError

KEY = "baseline"


def is_of_baseline(typed: Sequence[str]) -> bool:
    """Return whether ``invrep vocabulary`` has an argument ``baseline=NAME``."""
    return any(word.lstrip("-+").partition("=")[0] == KEY for word in typed)


def paired_dictionary(typed: Sequence[str]) -> None:
    """Run ``invrep vocabulary baseline=hoggle …``: fit a paired dictionary to photos, and write it to a file.

    Args:
        typed: arguments after ``vocabulary``.

    Raises:
        SystemExit: a mistake of the user's (status 1) or a signal, after its sentence.
    """
    with one_sentence():
        overrides = arguments(typed)
        names = [word.partition("=")[2] for word in overrides if word.partition("=")[0] == KEY]
        if names != ["hoggle"]:
            raise InvrepError(f"baseline={','.join(names)} has no dictionary; the baseline that has one is hoggle.")
        config, name = composed([word for word in overrides if word.partition("=")[0] != KEY], any_code=True)
        from invrep.api.paired import fit_paired
        from invrep.reporting.terminal import make_console
        from invrep.tracking.steps_bar import StepsBar

        console = make_console(quiet=config.quiet)
        with StepsBar(console) as bar:
            fitted, left_out = fit_paired(config.rep, config.data, config.output, config.seed, bar)
        lines = []
        if left_out:
            more = f" … and {len(left_out) - MOST_TOLD} more" if len(left_out) > MOST_TOLD else ""
            lines.append(f"left out: {' '.join([*left_out.values()][:MOST_TOLD])}{more}")
        about = fitted.settings
        lines.append(
            f"paired dictionary: {config.output}, {len(fitted.codes)} atoms from {about['windows']} windows of "
            f"{about['photos']} photos"
        )
        lines.append(f"use: invrep rep={name} baseline=hoggle baseline.dictionary={config.output} data.path=photo.jpg")
        for line in lines:
            console.print(line, soft_wrap=True, markup=False)
