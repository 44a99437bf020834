"""Film a descent from noise to pre-image, as MP4 or GIF."""

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

RATE = 8  # frames per second
HOLD = 12  # repetitions of the last frame


def film_format(video: bool | str) -> str | None:
    """Return the format for a config's ``video``: ``mp4``, ``gif``, or None for no films.

    Args:
        video: ``mp4``, ``gif``, False, or True for MP4 with PyAV installed and GIF without.

    Raises:
        InvrepError: ``video`` is none of these, or ``mp4`` without PyAV.
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
    """Keep the pre-images of a batch at the start and after each segment of ``log_every`` passes.

    Frames are float16 on the CPU: .3 MB for each 224×224 colour frame.

    Attributes:
        frames: list of (B, C, H, W) in the order of the passes; 0 to 1 is black to white, unclipped.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Tensor] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Keep the start of the first stage; a later stage starts at a frame that is already kept."""
        if not self.frames:
            self._keep(pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Keep the pre-images at the end of a segment."""
        self._keep(pl_module)

    def _keep(self, inversion: Inversion) -> None:
        self.frames.append(inversion.reconstruction().detach().to("cpu", torch.float16))

    def save(self, row: int, results: Results, image: str, restart: int, *, display: str, suffix: str) -> None:
        """Write the film of one pre-image of the batch, whole or not at all.

        All frames are displayed in the value range of the last one. So brightness does not flicker, and the last frame
        equals the picture of the reconstruction.

        Args:
            row: row of the batch, from 0.
            results: folder of the job.
            image: id of the photo.
            restart: number of the restart.
            display: ``rescale`` or ``clip``, see :func:`invrep.data.display.shown`.
            suffix: ``mp4`` or ``gif``.

        Raises:
            InvrepError: the file cannot be written.
        """
        frames = torch.stack([frame[row] for frame in self.frames]).float()
        low, high = (frames[-1].min(), frames[-1].max()) if display == "rescale" else (0.0, 1.0)
        frames = ((frames - low) / max(float(high - low), 1e-12)).nan_to_num(0.0).clamp(0, 1)
        write = _write_mp4 if suffix == "mp4" else _write_gif
        results.write(results.film(image, restart, suffix), lambda path: write(frames, path))


def _write_gif(frames: Tensor, path: Path) -> None:
    """Write frames (T, C, H, W) in [0, 1] as a GIF that loops forever."""
    pictures = [to_pil(frame).convert("RGB").quantize(dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    still = 1000 // RATE
    durations = [still] * (len(pictures) - 1) + [still * HOLD]
    pictures[0].save(path, format="GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def _write_mp4(frames: Tensor, path: Path) -> None:
    """Write frames (T, C, H, W) in [0, 1] as H.264, which every browser plays."""
    from imageio.plugins.pyav import PyAVPlugin
    from imageio.v3 import imopen

    # H.264 halves the resolution of colour in both directions, which needs even sides
    frames = F.pad(frames, [0, 0, frames.shape[3] % 2, frames.shape[2] % 2], padding_mode="edge")
    pictures = (frames * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    with imopen(path, "w", plugin=PyAVPlugin, container="mp4", options={"movflags": "faststart"}) as film:
        film.write([*pictures, *[pictures[-1]] * HOLD], codec="libx264", fps=RATE)
