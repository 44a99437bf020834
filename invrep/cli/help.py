"""``invrep --help``, on one screen."""

from __future__ import annotations

import textwrap

from invrep.presets import FOLDER

GROUPS = ("rep", "objective", "prior", "optim", "data", "logger", "launcher", "experiment")
TEXT = """\
invrep finds the images that an image representation cannot tell from a photo.

usage: invrep [key=value …]        one job: HOG of a bundled photo, unless you say otherwise
       invrep -m key=a,b [… …]     a sweep: a job for each combination
       invrep report outputs/      an HTML page of finished jobs
       invrep --version

examples:
  invrep                                                    HOG of a bundled photo, back to a picture
  invrep rep=vgg16 layer=relu5_3 data.path=photo.jpg        a layer of VGG-16
  invrep rep=vgg16 layer=list                               the layers that there are
  invrep rep=alexnet layer=fc8 restarts=5 data.path=photos/ five pre-images of each photo of a folder
  invrep -m rep=alexnet layer=relu1,relu2,relu3             a sweep over layers
  invrep rep=dsift prior=chroma data.path=photo.jpg         another representation and prior
  invrep rep=hog data.path=photos/ trainer.devices=8        photos shared by eight GPUs
  invrep experiment=cvpr15/fig6                             a figure of the paper

groups:
{groups}

Keys of a group are set as prior.tv.weight=5; invrep --cfg job shows all. dry_run=true shows the plan only.
Docs: https://github.com/invrep/invrep/tree/main/docs
"""


def help_text() -> str:
    """Return what the command does, examples, and the config groups with their choices."""
    lines = []
    for group in GROUPS:
        found = sorted(path.relative_to(FOLDER / group).with_suffix("") for path in (FOLDER / group).rglob("*.yaml"))
        names = ", ".join(path.as_posix() for path in found if path.parts[0] != "base")
        lines += textwrap.wrap(names, 118, initial_indent=f"  {group:<11}", subsequent_indent=" " * 13)
    return TEXT.format(groups="\n".join(lines))
