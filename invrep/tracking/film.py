"""Films: how a pre-image comes out of its noise, as MP4 or GIF."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as F

from invrep.data.display import to_pil
from invrep.errors import InvrepError
from invrep.inversion.module import Inversion
from invrep.results.store import Results
from invrep.validation import choice

RATE = 8  # frames a second
HOLD = 12  # frames for which the last one stays


def film_format(video: bool | str) -> str | None:
    """Return what a config's ``video`` means: ``mp4``, ``gif``, or None for no films.

    ``true`` is MP4 where PyAV is installed, else GIF.

    Raises:
        InvrepError: it is none of these, or MP4 without PyAV.
    """
    if video is False:
        return None
    if video is True:
        return "mp4" if find_spec("av") else "gif"
    choice("video", video, ("mp4", "gif", "true", "false"))
    if video == "mp4" and not find_spec("av"):
        raise InvrepError("video=mp4 needs PyAV; install it with pip install 'invrep[video]', or take video=gif.")
    return video


class Film(pl.Callback):
    """Keeps the pre-images of a batch at their start and after each segment (``log_every`` passes).

    They are held as half-precision floats on the CPU: of a 224×224 colour image .3 MB a frame.

    Attributes:
        frames: (B, C, H, W) in [0, 1], unclipped, in the order of the passes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Tensor] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Keep the start; that of a later stage is the end of the one before."""
        if not self.frames:
            self._keep(pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Keep what a segment has come to."""
        self._keep(pl_module)

    def _keep(self, inversion: Inversion) -> None:
        self.frames.append(inversion.reconstruction().detach().to("cpu", torch.float16))

    def save(self, row: int, results: Results, image: str, restart: int, *, display: str, suffix: str) -> None:
        """Write the film of one pre-image of the batch, whole or not at all.

        The whole film is shown in the range of its last frame, so that this is the picture of the reconstruction and
        brightness does not flicker.

        Args:
            row: of the batch.
            results: the job's folder.
            image: the photo's id.
            restart: its number.
            display: see :func:`invrep.data.display.shown`.
            suffix: ``mp4`` or ``gif``.
        """
        frames = torch.stack([frame[row] for frame in self.frames]).float()
        low, high = (frames[-1].min(), frames[-1].max()) if display == "rescale" else (0.0, 1.0)
        frames = ((frames - low) / max(float(high - low), 1e-12)).nan_to_num(0.0).clamp(0, 1)
        write = _write_mp4 if suffix == "mp4" else _write_gif
        results.write(results.film(image, restart, suffix), lambda path: write(frames, path))


def _write_gif(frames: Tensor, path: Path) -> None:
    """Write frames (T, C, H, W) in [0, 1] as a GIF that repeats for ever."""
    pictures = [to_pil(frame).convert("RGB").quantize(dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    still = 1000 // RATE
    durations = [still] * (len(pictures) - 1) + [still * HOLD]
    pictures[0].save(path, format="GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def _write_mp4(frames: Tensor, path: Path) -> None:
    """Write frames (T, C, H, W) in [0, 1] as H.264, which every browser plays."""
    from imageio.plugins.pyav import PyAVPlugin
    from imageio.v3 import imopen

    # its colour is halved in both directions, so sides are even
    frames = F.pad(frames, [0, 0, frames.shape[3] % 2, frames.shape[2] % 2], padding_mode="edge")
    pictures = (frames * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    with imopen(path, "w", plugin=PyAVPlugin, container="mp4", options={"movflags": "faststart"}) as film:
        film.write([*pictures, *[pictures[-1]] * HOLD], codec="libx264", fps=RATE)
