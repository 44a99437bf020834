"""What priors do to pictures: measures of pre-images and pages of them, over those of the former default recipe.

``before`` is that recipe: the CVPR energy (prior=cvpr15 prior.sigma=auto), Adam at a rate of .03. Every fifth photo of
a folder, from the first, served to choose the constants; every fifth from the third reports. Photos are squashed to a
square. Each number is a median over photos; behind it, in brackets, is the median of the photos' ratios to ``before``
(of PSNR, SSIM and LPIPS: differences). Measures are those of picture_measures.py; the other network is ResNet-18 layer3
for AlexNet, else AlexNet relu4.

    python benchmarks/pictures.py --photos FOLDER --weights ../shared/weights [--cases alexnet:pool5 …]
        [--priors natural none …] [--number 20] [--seeds 0 1 2] [--side 224] [--passes 100] [--pages FOLDER]

``--pages`` writes a page of pictures for each case: photos by priors, with the code error below; ``--cell`` shrinks
them. ``--invented`` inverts with the denoiser and without it, to one code error within a few percent, by fewer passes
of the one that ends lower. It writes a page with their difference: what differs at one error came from the prior, not
from the code.
``--time 30 40 50`` times so many passes: the error and the seconds over those of ``before`` after all of its passes.
``--equal`` compares priors at one code error, that of the first prior as it is. The others' weights take a common
factor, found by bisection on the tuning photos: the median of their errors comes within 3 % of the first prior's, if a
thousandth of their weights reaches it. The table is of the reporting photos.
``PRIOR/KEY=VALUE`` is a prior with a changed key, such as ``natural/prior.denoiser.noise=0``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from picture_measures import Looks, lpips_of, representation
from PIL import Image, ImageDraw, ImageFont
from timing import machine
from torch import Tensor

from invrep.data.photo_reading import from_pillow
from invrep.inversion.compute import Compute
from invrep.inversion.solver import solve
from invrep.jobs.process import prepare_process
from invrep.presets import build, preset
from invrep.representations.base import Representation

BEFORE = "before"
CASES = ["vgg16:relu3_3", "vgg16:relu4_3", "alexnet:relu4", "alexnet:pool5", "resnet18:layer3"]
COLUMNS = ["case", "prior", "code error", "contrast", "cast", "gradients", "photo's", "from its photo"]
COLUMNS += ["PSNR", "SSIM", "LPIPS", "other network", "s"]
DIFFERENCES = ("psnr", "ssim", "lpips")
BOTTOM = 16  # pixels of a caption


def recipe(prior: str, passes: int, changes: dict[str, Any]) -> tuple[Any, Any]:
    """Return the prior and the descent by the name of a preset; its keys may be changed."""
    prior, *own = prior.split("/")
    changes = {**changes, **dict(map(setting, own))}
    energy, descent = preset("prior", "cvpr15" if prior == BEFORE else prior), preset("optim", "adam")
    descent.steps = passes
    if prior == BEFORE:
        energy.sigma = "auto"
        descent.name, descent.lr, descent.decorrelate = "Adam", 0.03, 0
    for key, value in changes.items():
        group, _, name = key.partition(".")
        node, names = {"prior": energy, "optim": descent}[group], name.split(".")
        for inner in names[:-1]:
            node = node[inner]
        node[names[-1]] = value
    return build(energy), build(descent)


def squashed(file: Path, side: int) -> Tensor:
    """Return a photo as a square, (3, side, side) in [0, 1]."""
    with Image.open(file) as image:
        return from_pillow(image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS), "rgb")


def files(folder: Path) -> list[Path]:
    """Return the photos of a folder; numbers in names count as numbers."""
    found = [file for file in folder.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png")]
    return sorted(found, key=lambda file: (int(file.stem) if file.stem.isdigit() else 0, file.name))


def invert(
    phi: Representation,
    photo: Tensor,
    name: str,
    prior: str,
    passes: int,
    seed: int,
    args: argparse.Namespace,
    factor: float = 1.0,
) -> tuple[Tensor, float]:
    """Return one pre-image (C, H, W) and the seconds that it took; all weights of the prior are times ``factor``."""
    energy, descent = recipe(prior, passes, {} if prior == BEFORE else dict(args.set))
    for term, weight in energy.weights(phi).items():
        energy.terms[term].weight = weight * factor
    began = time.perf_counter()
    inversion = solve(
        photo[None],
        [(0, name, 0)],
        phi=phi,
        prior=energy,
        descent=descent,
        seed=seed,
        segment=passes,
        trainer={"accelerator": "cpu"},
        compute=Compute(args.precision),
    )
    with torch.no_grad():
        return inversion.reconstruction()[0].detach(), time.perf_counter() - began


def line(case: str, prior: str, found: list[dict[str, float]], before: list[dict[str, float]], took: float) -> str:
    """Return a row of the table."""
    cells = []
    for name in found[0]:
        pairs = list(zip((x[name] for x in found), (x[name] for x in before), strict=True))
        value = statistics.median(one for one, _ in pairs)
        if name in DIFFERENCES:
            cells.append(f"{value:.3g} ({statistics.median(one - other for one, other in pairs):+.3f})")
        else:
            cells.append(f"{value:.3g} ({statistics.median(one / other for one, other in pairs):.2f})")
    return f"| {case} | {prior} | {' | '.join(cells)} | {took:.1f} |"


def page(columns: dict[str, list[Tensor]], errors: dict[str, list[float]], file: Path, cell: int | None = None) -> None:
    """Write the photos and their pre-images, a row for each photo, and the code error below each."""
    names = list(columns)
    side = cell or columns[names[0]][0].shape[-1]
    sheet = Image.new("RGB", (len(names) * (side + 4), len(columns[names[0]]) * (side + BOTTOM + 4) + BOTTOM), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, name in enumerate(names):
        keys = [key.rpartition(".")[2] for key in name.split("/")]  # prior/prior.key=value
        draw.text((column * (side + 4) + 2, 0), " ".join(keys), fill="black", font=font)
        for row, image in enumerate(columns[name]):
            place = (column * (side + 4), BOTTOM + row * (side + BOTTOM + 4))
            shown = Image.fromarray((image.clamp(0, 1).permute(1, 2, 0) * 255).round().byte().numpy())
            sheet.paste(shown.resize((side, side), Image.Resampling.LANCZOS), place)
            if name in errors:
                draw.text((place[0] + 2, place[1] + side), f"{errors[name][row]:.4f}", fill="black", font=font)
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file, quality=92)


def table(case: str, args: argparse.Namespace) -> None:
    """Print the rows of a case, and write its page."""
    phi = representation(case, args.weights)
    other = representation("resnet18:layer3" if case.startswith("alexnet") else "alexnet:relu4", args.weights)
    every = files(args.photos)
    chosen = (every if args.part == "all" else every[{"report": 2, "tuning": 0}[args.part] :: 5])[: args.number]
    photos = [squashed(file, args.side) for file in chosen]
    looks = Looks(phi, other, [squashed(file, args.side) for file in every], lpips_of(args.weights))
    columns, errors, before = {"photo": photos}, {}, []
    factors = equal_weights(phi, args) if args.equal else {}
    for prior in factors or [BEFORE, *args.priors]:
        found, images, took = [], [], []
        for seed in args.seeds:
            for file, photo in zip(chosen, photos, strict=True):
                image, seconds = invert(phi, photo, file.stem, prior, args.passes, seed, args, factors.get(prior, 1.0))
                found.append(looks(image, photo))
                images.append(image)
                took.append(seconds)
        before = before or found
        columns[prior], errors[prior] = images[: len(photos)], [x["error"] for x in found]
        print(line(case, prior, found, before, statistics.median(took)), flush=True)
        if args.pages:
            page(columns, errors, args.pages / f"{case.replace(':', '_')}.jpg", args.cell)


def equal_weights(phi: Representation, args: argparse.Namespace) -> dict[str, float]:
    """Return the factor of each prior's weights at which the tuning photos' median error is the first prior's."""
    chosen = files(args.photos)[::5][: args.number]
    photos = {file.stem: squashed(file, args.side) for file in chosen}

    def error(prior: str, factor: float) -> float:
        images = {
            name: invert(phi, photo, name, prior, args.passes, 0, args, factor)[0] for name, photo in photos.items()
        }
        return statistics.median(error_of(phi, image, photos[name]) for name, image in images.items())

    wanted = error(args.priors[0], 1.0)
    factors = {args.priors[0]: 1.0}
    for prior in args.priors[1:]:
        factor, low, high = 1.0, 1e-3, 1.0
        found = error(prior, factor)
        while abs(found / wanted - 1) > 0.03 and high / low > 1.1:
            factor = (low * high) ** 0.5
            found = error(prior, factor)
            low, high = (factor, high) if found < wanted else (low, factor)
        factors[prior] = factor
        print(f"{prior}: weights × {factor:.3g}, error {found:.4f} of {wanted:.4f} on tuning photos", flush=True)
    return factors


def error_of(phi: Representation, image: Tensor, photo: Tensor) -> float:
    """Return the code error of a pre-image (C, H, W)."""
    with torch.no_grad():
        pairs = list(zip(phi(image[None]), phi(photo[None]), strict=True))
    return float(sum((a - b).square().sum() for a, b in pairs) / sum(b.square().sum() for _, b in pairs))


def invented(case: str, args: argparse.Namespace) -> None:
    """Write a page of pre-images with and without the denoiser at one code error, and of their differences."""
    phi = representation(case, args.weights)
    chosen = files(args.photos)[2::5][: args.number]
    columns: dict[str, list[Tensor]] = {"photo": [], "denoiser": [], "without": [], "difference, 3x": []}
    errors: dict[str, list[float]] = {"denoiser": [], "without": []}
    for file in chosen:
        photo = squashed(file, args.side)

        def run(noise: Any, passes: int, photo: Tensor = photo, name: str = file.stem) -> tuple[Tensor, float]:
            changed = argparse.Namespace(**{**vars(args), "set": [*args.set, ("prior.denoiser.noise", noise)]})
            image, _ = invert(phi, photo, name, args.priors[0], passes, 0, changed)
            return image, error_of(phi, image, photo)

        found = {"denoiser": run("auto", args.passes), "without": run(0, args.passes)}
        low, high = sorted(found, key=lambda name: found[name][1])
        least, most = 8, args.passes
        while least < most - 1 and found[low][1] < 0.97 * found[high][1]:
            middle = (least + most) // 2
            image, error = run("auto" if low == "denoiser" else 0, middle)
            least, most = (middle, most) if error > 1.03 * found[high][1] else (least, middle)
            if error <= 1.03 * found[high][1]:
                found[low] = image, error
        images = {name: image.clamp(0, 1) for name, (image, _) in found.items()}
        gap = 3 * (images["denoiser"] - images["without"]).abs().mean(0, keepdim=True).expand(3, -1, -1)
        for name, image in {"photo": photo, **images, "difference, 3x": gap}.items():
            columns[name].append(image)
        for name in errors:
            errors[name].append(found[name][1])
        print(f"| {case} | {file.stem} | {errors['denoiser'][-1]:.4f} | {errors['without'][-1]:.4f} |", flush=True)
        page(columns, errors, args.pages / f"invented_{case.replace(':', '_')}.jpg")


def timed(case: str, args: argparse.Namespace) -> None:
    """Print error and seconds over those of ``before``, for several numbers of passes."""
    phi = representation(case, args.weights)
    chosen = files(args.photos)[2::5][: args.number]
    photos = {file.stem: squashed(file, args.side) for file in chosen}
    for passes in args.time:
        errors, times = [], []
        for name, photo in photos.items():
            pair = []
            for prior, number in ((BEFORE, args.passes), (args.priors[0], passes)):
                image, took = invert(phi, photo, name, prior, number, 0, args)
                pair.append((error_of(phi, image, photo), took))
            errors.append(pair[1][0] / pair[0][0])
            times.append(pair[1][1] / pair[0][1])
        print(
            f"| {case} | {passes} | {statistics.median(errors):.2f} | {statistics.median(times):.2f} "
            f"({min(times):.2f}–{max(times):.2f}) |",
            flush=True,
        )


def setting(text: str) -> tuple[str, Any]:
    """Return a changed key and its value."""
    key, _, value = text.partition("=")
    try:
        return key, float(value)
    except ValueError:
        return key, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--priors", nargs="+", default=["natural"])
    parser.add_argument("--part", choices=["report", "tuning", "all"], default="report")
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--passes", type=int, default=100)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--set", type=setting, nargs="+", default=[], help="changed keys, such as prior.tv.share=.1")
    parser.add_argument("--pages", type=Path)
    parser.add_argument("--cell", type=int, help="side in pixels of a picture of a page; by default the image's")
    parser.add_argument("--equal", action="store_true")
    parser.add_argument("--invented", action="store_true")
    parser.add_argument("--time", type=int, nargs="+", help="numbers of passes")
    args = parser.parse_args()
    prepare_process()
    print(machine())
    if args.invented:
        print("| case | photo | error with the denoiser | without |\n| --- | --- | --- | --- |")
    elif args.time:
        print("| case | passes | error over before | seconds over before |\n| --- | --- | --- | --- |")
    else:
        print(f"| {' | '.join(COLUMNS)} |")
        print("|" + " --- |" * len(COLUMNS))
    for case in args.cases:
        (invented if args.invented else timed if args.time else table)(case, args)


if __name__ == "__main__":
    main()
