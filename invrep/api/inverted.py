"""Hold what :func:`invrep.invert` found, and show, plot and save it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Bool, Float, Int
from torch import Tensor

from invrep.evaluation.still_falling import still_falling
from invrep.messages import count
from invrep.tracking.progress import worded

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Inverted:
    """Hold the result of :func:`invert` for n images with R restarts each.

    A notebook shows it as a grid of photos and pre-images with their errors.

    Attributes:
        reconstructions: pre-images (n, R, C, H, W) on the CPU; 0 to 1 is black to white, unclipped.
        photos: given images (n, C, H, W) in [0, 1]; None where only a shape was given.
        names: names of the images, n texts: ``ids``, or ``images[0]``, ``images[1]``, … without.
        codes: codes Φ of the reconstructions, a list of (n, R, …).
        targets: codes Φ0 of the images, a list of (n, …); empty where only a shape was given.
        metrics: measures by name, (n, R) each. For a match: ``error`` ‖Φ−Φ0‖²/‖Φ0‖², its root ``root_error``,
            ``distance`` ‖Φ−Φ0‖² and ``code_norm`` ‖Φ0‖²; otherwise ``activation``. With images: ``psnr`` in dB and
            ``ssim``. Always: ``energy`` and its terms.
        history: list of (pass, {name: (n, R)}) with the error or activation, the energy and its terms;
            :meth:`curve` plots it.
        passes: integer (n, R), number of passes of each pre-image.
        converged: bool (n, R); False where the descent diverged, which returns the last good state, where the
            energy ended no lower than it began, or where an interrupt cut the descent short.
        remarks: reason why an image has no relative error, n texts; empty where it has one. The ``error`` of such an
            image is NaN; ``nanmean`` leaves it out of a mean.
        stopped: whether an interrupt ended :func:`invert` early. Images without a pass are then left out.
        display: ``clip`` or ``rescale``: how values become grey levels in pictures, of photos and pre-images alike.
            ``clip`` cuts at 0 and 1; ``rescale`` stretches each picture, for a code that ignores contrast.
    """

    reconstructions: Float[Tensor, "image restart channel row column"]
    photos: Float[Tensor, "image channel row column"] | None
    names: list[str]
    codes: list[Float[Tensor, "image restart ..."]]
    targets: list[Float[Tensor, "image ..."]]
    metrics: dict[str, Float[Tensor, "image restart"]]
    history: list[tuple[int, dict[str, Float[Tensor, "image restart"]]]]
    passes: Int[Tensor, "image restart"]
    converged: Bool[Tensor, "image restart"]
    remarks: list[str]
    stopped: bool = False
    display: str = "clip"

    @property
    def shows(self) -> str:
        """Return the name of the measure that captions and curves show: ``error`` or ``activation``."""
        return "error" if "error" in self.metrics else "activation"

    def caption(self, image: int, restart: int) -> str:
        """Return the error of a pre-image as text, or its activation; it says where more passes would help.

        ``still falling``: the last tenth of the passes lowered the error by more than 5 %.

        Args:
            image: index of the image.
            restart: number of the restart.
        """
        value = float(self.metrics[self.shows][image, restart])
        text = f"no relative {self.shows}" if math.isnan(value) else worded(self.shows, value)
        if bool(self.converged[image, restart]):
            curve = [(at, float(terms["error"][image, restart])) for at, terms in self.history if "error" in terms]
            return f"{text}, still falling" if still_falling(curve) else text
        return f"{text}, not converged" + (f", pass {int(self.passes[image, restart])}" if self.stopped else "")

    def __repr__(self) -> str:
        """Return one line: the numbers of images and restarts, their size, the mean error and the passes."""
        images, restarts, *sides = self.reconstructions.shape
        values = self.metrics[self.shows]
        mean = values[~values.isnan()].mean()
        words = [
            f"{count(images, 'image')} × {count(restarts, 'restart')} of {'×'.join(map(str, sides))}",
            *([] if mean.isnan() else [f"mean {self.shows} {worded(self.shows, float(mean))}"]),
            f"{int(self.passes.max())} passes" + (", stopped" if self.stopped else ""),
        ]
        if failed := int((~self.converged).sum()):
            words.append(f"{failed} not converged")
        return f"Inverted({', '.join(words)})"

    def _repr_html_(self) -> str:
        """Return the grid for a notebook, see :func:`invrep.api.html.grid`."""
        from invrep.api.html import grid

        return grid(self)

    def plot(self, images: Iterable[int] | None = None) -> Figure:
        """Draw photos beside their pre-images with their errors: at most 16 images, and 7 restarts of each.

        Args:
            images: indices of the images; None: the first.

        Returns:
            Figure of matplotlib, which a notebook shows and ``savefig`` writes. pyplot does not know it.

        Raises:
            InvrepError: there is no image with such an index.
        """
        from invrep.api.figures import grid

        return grid(self, images)

    def curve(self) -> Figure:
        """Draw the error of every pre-image against the pass, both on logarithmic axes.

        An activation has a linear axis, since it may be negative.

        Returns:
            Figure of matplotlib, which a notebook shows and ``savefig`` writes. pyplot does not know it.
        """
        from invrep.api.figures import curves

        return curves(self)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write everything into one file of a folder, ``inverted.safetensors``, whole or not at all.

        The file replaces an earlier one of that name. :func:`invrep.load` reads it; it holds no code.

        Args:
            folder: path of the folder, which is made if needed.

        Raises:
            InvrepError: the file cannot be written.
        """
        from invrep.api.saving import save

        save(self, folder)
