"""Draw the starts of descents again, from the config's record of their noise."""

from __future__ import annotations

import math

import torch
from PIL import Image

from invrep.data.batching import Key
from invrep.data.display import shown, to_pil
from invrep.optim.start_noise import amount_of, generator_of, noise_of
from invrep.priors.terms import PIXEL_RMS
from invrep.reporting.comparison import Run


def start_of(run: Run, key: Key) -> Image.Image | None:
    """Return the picture of a pre-image at pass 0, displayed as the pre-image is.

    It is None without a record, as of a descent that started from the photo, or if the pre-image's PNG is unreadable.

    Args:
        run: job of the pre-image.
        key: image id and restart.
    """
    record, config = run.used.get("start_noise"), run.config or {}
    if not record:
        return None
    try:
        with Image.open(run.results.picture(*key)) as picture:
            height, width, channels = picture.height, picture.width, len(picture.getbands())
    except (OSError, SyntaxError, ValueError):
        return None
    margin = record["margin"]
    shape = (channels, height + margin, width + margin)
    sigma = PIXEL_RMS * math.sqrt(math.prod(shape)) if record["sigma"] == "auto" else record["sigma"]
    amount = amount_of(record["noise"], record["start"], sigma) / 255
    noise = noise_of(record["noise"], shape, generator_of(config["seed"], *key), amount)
    top = left = margin // 2
    mean = torch.tensor(record["mean"], dtype=torch.float64)[:, None, None]
    rgb = mean + noise[:, top : top + height, left : left + width]
    return to_pil(shown(rgb, config["display"]))
