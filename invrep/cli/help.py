"""Compose the text of ``invrep --help``, on one screen."""

from __future__ import annotations

import textwrap

from invrep.presets import FOLDER

GROUPS = ("rep", "objective", "prior", "optim", "baseline", "data", "logger", "launcher", "hparams", "certificate")
TEXT = """\
invrep inverts an image representation: it finds images whose code is nearly that of a photo.

usage: invrep [key=value …]        one job; without a key, HOG of a bundled photo
       invrep -m key=a,b [… …]     a sweep, one job for each combination of values
       invrep baselines            the methods to compare with, by baseline=NAME
       invrep report outputs/      an HTML report of finished jobs
       invrep vocabulary --help    fit the words of rep=fisher and its kin to photos
       invrep certify outputs/JOB  what else takes its pre-images for their photos
       invrep compare A B          two finished jobs or sweeps, photo by photo, with intervals and a test
       invrep --version

-q, --quiet, anywhere in the line, prints results and errors alone.

examples:
  invrep                                                      invert HOG of a bundled photo
  invrep rep=dsift prior=chroma data.path=photo.jpg           another representation, prior and photo
  invrep rep=vgg16 layer=list                                 list the layers of a network
  invrep rep=vgg16 layer=relu5_3 data.path=photo.jpg          invert one of them
  invrep rep=alexnet layer=fc8 restarts=5 data.path=photos/   five pre-images of each photo in a folder
  invrep -m rep=alexnet layer=relu1,relu2,relu3               sweep over layers
  invrep rep=vgg16 layer=relu5 data.path=photos/ trainer.devices=8   share the photos among eight GPUs
  invrep experiment=cvpr15/fig3                               a figure of the paper

groups:
{groups}

A key is set as prior.tv.weight=5. invrep --cfg job prints every key; dry_run=true prints the plan of a job.
eval "$(invrep -sc install=bash)" completes groups and keys by Tab. HYDRA_FULL_ERROR=1 prints tracebacks.
The documentation is docs/ in the repository.
"""


def help_text() -> str:
    """Return the help text: purpose, usage, examples, and the config groups with their choices."""
    groups = {group: ", ".join(sorted(path.stem for path in (FOLDER / group).glob("*.yaml"))) for group in GROUPS}
    groups["experiment"] = "docs/papers.md lists " + ", ".join(
        f"{folder.name}/… ({len([*folder.glob('*.yaml')])})"
        for folder in sorted((FOLDER / "experiment").iterdir())
        if folder.name != "base"
    )
    lines = []
    for group, names in groups.items():
        lines += textwrap.wrap(names, 105, initial_indent=f"  {group:<11}", subsequent_indent=" " * 13)
    return TEXT.format(groups="\n".join(lines))


def baselines_text() -> str:
    """Return a line for each baseline: its name, and what it does by the first line of its file."""
    files = sorted(path for path in (FOLDER / "baseline").glob("*.yaml") if path.stem != "none")
    width = max(len(path.stem) for path in files)
    lines = [f"{path.stem:<{width}}  {path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}" for path in files]
    return "\n".join(lines)
