"""Pictures of ours beside those of peers, which have as many seconds as ours on the same photo and layer.

Ours is the default recipe, ``prior=natural``. The peers:

- plenoptic's ``Metamer``: its defaults from its own start, uniform noise; of three learning rates, the one of the least
  code error on the photo.
- Lucent-style (Olah, Mordvintsev, Schubert 2017): coefficients of a Fourier transform scaled by 1/f, colours wholly
  decorrelated, a sigmoid, Adam at .05. Every pass draws padding, shifts and size anew, as Lucent's feature inversion
  does, alike for picture and photo; the loss is the mean squared error between their codes.
- Deep image prior (Ulyanov, Vedaldi, Lempitsky 2018): the weights of a small untrained U-Net are descended from fixed
  noise by Adam at .01, on the mean squared code error.

    python benchmarks/peer_pictures.py --photos FOLDER --weights ../shared/weights --python peers/bin/python
        [--cases alexnet:pool5 …] [--number 4] [--side 224] [--passes 100] [--pages FOLDER]

peers.py says how plenoptic's environment is made. Photos are the reporting ones of pictures.py, measures those of
picture_measures.py. Each number is a median over photos. Seconds are of the processor, summed over threads, so that
what else runs on the machine does not count; only the code error is of values that are not clipped.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch
import torch.nn.functional as F
from peers import RATES, Plenoptic
from picture_measures import FILES, Looks, lpips_of, representation
from pictures import files, invert, page, squashed
from timing import machine
from torch import Tensor, nn

from invrep.jobs.process import prepare_process
from invrep.optim.bases import COLOUR
from invrep.representations.base import Representation

CASES = ["alexnet:pool5", "alexnet:relu4", "resnet18:layer3"]
MEASURES = ["error", "contrast", "cast", "gradients", "psnr", "ssim", "lpips", "other network"]
COLUMNS = ["case", "by", "code error", *MEASURES[1:4], "PSNR", "SSIM", "LPIPS", "other network", "passes", "s"]
Made = tuple[Tensor, int, float]  # picture (C, H, W), passes, seconds


class Fourier(nn.Module):
    """Make an image of Fourier coefficients scaled by 1/f, with decorrelated colours and a sigmoid."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        f = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)).clamp(min=1 / side)
        self.scale = 1 / (4 * f)  # 4 is Lucid's constant
        self.spectrum = nn.Parameter(0.01 * torch.randn(3, *f.shape, 2))
        colour = torch.tensor(COLOUR)
        self.colour = colour / colour.norm(dim=0).max()

    def forward(self) -> Tensor:
        image = torch.fft.irfft2(torch.view_as_complex(self.spectrum) * self.scale, (self.side,) * 2, norm="ortho")
        return (self.colour @ image.flatten(1)).view_as(image).sigmoid()[None]


def viewed(images: Tensor) -> Tensor:
    """Return images (B, C, H, W) padded by grey, shifted, resized and shifted again, all by the same random numbers."""
    images = shifted(F.pad(images, [8] * 4, value=0.5), 8)
    scale = [0.9, 0.95, 1.05, 1.1, 1, 1, 1, 1][int(torch.randint(8, ()))]
    size = [round(scale * n) for n in images.shape[-2:]]
    return shifted(F.interpolate(images, size, mode="bilinear", align_corners=True), 2)


def shifted(images: Tensor, largest: int) -> Tensor:
    """Return images without ``largest`` of their rows and columns, at a random place."""
    row, column = torch.randint(largest + 1, (2,)).tolist()
    return images[..., row : images.shape[-2] - largest + row, column : images.shape[-1] - largest + column]


class UNet(nn.Module):
    """Make an image of fixed noise by an untrained U-Net of three scales."""

    def __init__(self, side: int, widths: tuple[int, ...] = (16, 32, 64), skip: int = 4) -> None:
        super().__init__()
        self.noise = 0.1 * torch.rand(1, widths[0], side, side)
        ends = (widths[0], *widths)
        self.skips = nn.ModuleList(block(n, skip, 1) for n in ends[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(block(n, wide, 3, 2), block(wide, wide, 3)) for n, wide in zip(ends, widths, strict=False)
        )
        self.up = nn.ModuleList(block(wide + skip, n, 3) for n, wide in zip(ends, widths, strict=False))
        self.last = nn.Conv2d(widths[0], 3, 1)

    def forward(self) -> Tensor:
        x, kept = self.noise, []
        for skip, down in zip(self.skips, self.down, strict=True):
            kept.append(skip(x))
            x = down(x)
        for up, side in zip(reversed(self.up), reversed(kept), strict=True):
            x = up(torch.cat([F.interpolate(x, side.shape[-2:], mode="bilinear"), side], 1))
        return self.last(x).sigmoid()


def block(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution with batch normalisation and a leaky ReLU."""
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, padding_mode="reflect", bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2))


def descended(
    make: Callable[[int], nn.Module], lr: float, views: Callable[[Tensor], Tensor] | None, phi: Representation
) -> Callable[[Tensor, float], Made]:
    """Return a peer: a function of photo and seconds, which descends the parameters of ``make(side)`` by Adam.

    Args:
        make: function of the side → module, whose call without arguments is an image (1, C, H, W).
        lr: learning rate.
        views: random function of images (2, C, H, W), of the picture and of the photo; None: the photo's code is fixed.
        phi: representation Φ.
    """

    def peer(photo: Tensor, seconds: float) -> Made:
        began, passes = time.process_time(), 0
        torch.manual_seed(0)
        module = make(photo.shape[-1])
        optimiser = torch.optim.Adam(module.parameters(), lr)
        with torch.no_grad():
            (target,) = phi(photo[None])
        while time.process_time() - began < seconds:
            image = module()
            if views:
                image, seen = views(torch.cat([image, photo[None]])).split(1)
                with torch.no_grad():
                    (target,) = phi(seen)
            optimiser.zero_grad()
            F.mse_loss(phi(image)[0], target).backward()
            optimiser.step()
            passes += 1
        took = time.process_time() - began
        with torch.no_grad():
            return module()[0], passes, took

    return peer


def table(case: str, theirs: Plenoptic, args: argparse.Namespace) -> None:
    """Print the rows of a case, and write its page."""
    phi = representation(case, args.weights).private()
    other = representation("resnet18:layer3" if case.startswith("alexnet") else "alexnet:relu4", args.weights)
    every = files(args.photos)
    chosen = every[2::5][: args.number]
    looks = Looks(phi, other, [squashed(file, args.side) for file in every], lpips_of(args.weights))
    default = argparse.Namespace(set=[], precision="float32")
    rates = []

    def ours(photo: Tensor, name: str, passes: int) -> Made:
        began = time.process_time()
        image, _ = invert(phi, photo, name, "natural", passes, 0, default)
        return image, passes, time.process_time() - began

    def plenoptic(photo: Tensor, seconds: float) -> Made:
        torch.manual_seed(0)
        start, target = torch.rand_like(photo), phi(photo[None])[0]
        found = {lr: theirs(photo, start, lr, seconds) for lr in RATES}
        with torch.no_grad():
            rates.append(min(found, key=lambda lr: float((phi(found[lr][0])[0] - target).square().sum())))
        metamer, took, passes = found[rates[-1]]
        return metamer[0], passes, took

    peers = {
        "plenoptic": plenoptic,
        "Lucent-style": descended(Fourier, 0.05, viewed, phi),
        "deep image prior": descended(UNet, 0.01, None, phi),
    }
    columns: dict[str, list[Tensor]] = {name: [] for name in ("photo", "ours", *peers)}
    found: dict[str, list[list[float]]] = {name: [] for name in ("ours", *peers)}
    ours(squashed(chosen[0], args.side), "", 2)  # what is loaded once does not count
    for file in chosen:
        photo = squashed(file, args.side)
        columns["photo"].append(photo)
        made = {"ours": ours(photo, file.stem, args.passes)}
        made |= {name: peer(photo, made["ours"][2]) for name, peer in peers.items()}
        for name, (image, passes, took) in made.items():
            columns[name].append(image)
            measured = looks(image, photo)
            found[name].append([*(measured[key] for key in MEASURES), passes, took])
    for name, rows in found.items():
        cells = " | ".join(f"{statistics.median(cell):.3g}" for cell in zip(*rows, strict=True))
        label = f"{name} at {statistics.mode(rates):g}" if name == "plenoptic" else name
        print(f"| {case} | {label} | {cells} |", flush=True)
    if args.pages:
        errors = {name: [row[0] for row in rows] for name, rows in found.items()}
        page(columns, errors, args.pages / f"peers_{case.replace(':', '_')}.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="folder of the networks' weights")
    parser.add_argument("--python", type=Path, required=True, help="Python of plenoptic's environment")
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="NETWORK:LAYER")
    parser.add_argument("--number", type=int, default=4, help="photos")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--passes", type=int, default=100, help="passes of ours")
    parser.add_argument("--pages", type=Path, help="folder for a page of pictures of each case")
    args = parser.parse_args()
    prepare_process()
    print(machine())
    print(f"| {' | '.join(COLUMNS)} |\n|" + " --- |" * len(COLUMNS), flush=True)
    for case in args.cases:
        name = case.partition(":")[0]
        weights = (args.weights / f"{FILES[name]}.safetensors").resolve()
        asked = (name, representation(case, args.weights).paths[0], str(weights))
        with (
            tempfile.TemporaryDirectory() as folder,
            closing(Plenoptic(args.python, Path(folder), asked, args.passes)) as theirs,
        ):
            table(case, theirs, args)


if __name__ == "__main__":
    main()
