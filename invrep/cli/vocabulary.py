"""Fit a vocabulary to photos from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from invrep.cli.arguments import arguments
from invrep.cli.sentences import one_sentence
from invrep.errors import InvrepError
from invrep.fitting.codes import needs_of
from invrep.presets import FOLDER

if TYPE_CHECKING:
    from invrep.representations.vocabularies.vocabulary import Vocabulary

KEYS = ("rep", "layer", "data", "output", "seed", "quiet")
MOST_TOLD = 10  # photos named that are left out
HELP = """\
invrep vocabulary fits the vocabulary of a code to photos: visual words, a mixture of Gaussians, or a dictionary.

usage: invrep vocabulary rep=NAME data.path=photos/ output=FILE.safetensors [key=value …]

  rep=fisher                      code: bovw, textons, vlad, fisher, sparse or llc
  rep.words=256                   number of words, Gaussians or atoms, 16 to 4096; by default the code's own
  rep.projection=64               principal components that the descriptors are reduced to; by default 64 for fisher
  rep.descriptor=vgg16            descriptor, a representation with positions; by default the code's own
  rep.descriptor.layer=relu5      its layer, and any further setting of it
  data.path=photos/               folder, pattern, .txt, .csv or .tar of photos; 10⁵ of them fit in bounded memory
  data.limit=500                  at most so many photos; data.color, data.resize and data.range as in a job
  seed=0                          seed of the sample and of the fit
  output=words.safetensors        file to write; rep.vocabulary=words.safetensors then uses it

  baseline=hoggle                 with any rep of positions: the paired dictionary of invrep rep=NAME baseline=hoggle

Ctrl-C keeps the progress beside the output, and the same command resumes. It needs pip install 'invrep[vocabulary]'.
"""


def vocabulary(typed: Sequence[str]) -> None:
    """Run ``invrep vocabulary …``: fit a vocabulary to photos, and write it to a file.

    Args:
        typed: arguments after ``vocabulary``.

    Raises:
        SystemExit: a mistake of the user's (status 1) or a signal, after its sentence.
    """
    if not typed or any(word in ("-h", "--help") for word in typed):
        print(HELP)
        return
    with one_sentence():
        config, name = composed(arguments(typed))
        from invrep.api.vocabularies import fit_config
        from invrep.reporting.terminal import make_console
        from invrep.tracking.steps_bar import StepsBar

        console = make_console(quiet=config.quiet)
        with StepsBar(console) as bar:
            fitted, left_out = fit_config(config.rep, name, config.data, config.output, config.seed, bar)
        for line in _told(fitted, left_out, config.output, name):
            console.print(line, soft_wrap=True, markup=False)


def composed(overrides: Sequence[str], *, any_code: bool = False) -> tuple[DictConfig, str]:
    """Return the config of a fit, and the name of the code.

    Args:
        overrides: arguments in Hydra's syntax.
        any_code: bool; False: the code must be one with a vocabulary.

    Raises:
        InvrepError: an argument is no setting of this command, or a setting is missing.
    """
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.partition(".")[0].partition("@")[0] not in KEYS or "=" not in override:
            raise InvrepError(
                f"invrep vocabulary has no setting {override!r}; its settings are rep, rep.KEY, data.KEY, output, seed "
                f"and quiet, each given as KEY=VALUE."
            )
        if key == "rep" and not any_code:
            needs_of(override.partition("=")[2])
    with initialize_config_dir(str(FOLDER.resolve()), version_base="1.3"):
        whole = compose("vocabulary", list(overrides), return_hydra_config=True)
    name = whole.hydra.runtime.choices.rep
    with_keys = OmegaConf.masked_copy(whole, [key for key in map(str, whole) if key != "hydra"])
    missing = [key for key in ("rep", "data.path", "output") if OmegaConf.is_missing(with_keys, key)]
    if missing:
        raise InvrepError(f"{' and '.join(missing)} missing; give {' '.join(f'{key}=VALUE' for key in missing)}.")
    if not isinstance(with_keys.quiet, bool):
        raise InvrepError(f"quiet={with_keys.quiet} is not valid: expected true or false.")
    return with_keys, name


def _told(fitted: Vocabulary, left_out: dict[str, str], output: str, name: str) -> list[str]:
    """Return the lines that are printed about a vocabulary: what is left out, what it holds, and its use."""
    about = fitted.settings
    what = {"words": "words", "mixture": "Gaussians", "dictionary": "atoms"}[fitted.kind]
    lines = []
    if left_out:
        more = f" … and {len(left_out) - MOST_TOLD} more" if len(left_out) > MOST_TOLD else ""
        lines.append(f"left out: {' '.join([*left_out.values()][:MOST_TOLD])}{more}")
    sampled = f"{about['sampled']} of {about['descriptors']} descriptors of {about['photos']} photos"
    lines.append(f"vocabulary: {output}, {fitted.words} {what} from {sampled}")
    lines.append(f"use: invrep rep={name} rep.vocabulary={output} data.path=photo.jpg")
    return lines
