"""Finished jobs made by hand, for the tests of the page: what real jobs leave, without their passes."""

from pathlib import Path

import torch
from omegaconf import OmegaConf

from invrep.results.exports import export
from invrep.results.rows import Finished
from invrep.results.store import Results

FIELDS = {"conv1": 11, "relu1": 11, "relu2": 51, "relu3": 99, "fc6": None}
BOXES = {"relu3": "4 -8 24 56;0 0 10 8"}  # of two parts; the photos are 40 rows of 64 pixels
LAYERS = ["relu3", "relu1", "relu2"]
HOSTILE = "a\"'<script>alert(1)<&%20#?\n.png"
IMAGES = ["a.png", HOSTILE, "sub/a.png", "d.png"]


def made_job(
    place: Path, layer: str, images: list[str], *, restarts: int = 2, weight: float = 5.0, **used: str
) -> Results:
    """Write the folder of a job whose errors follow from layer, photo and restart; see :func:`error_of`.

    Those of relu3 are still falling. ``used`` has further settings, such as ``rep`` and ``prior``.
    """
    results = Results(place / "-".join([used.get("rep", "net"), layer, f"{weight:g}", *used.values()]))
    for image in images:
        tone = torch.full((3, 40, 64), (images.index(image) + 1) / (len(images) + 1))
        results.save_photo(image, tone, "clip")
        for restart in range(restarts):
            error = error_of(layer, images.index(image), restart) * weight / 5
            row = {"image": image, "restart": restart, "error": error, "root_error": error**0.5, "energy": 2 * error}
            row |= {"pairwise_error": float("nan"), "psnr": 20.0, "ssim": 0.5, "distance": error, "code_norm": 1.0}
            row |= {"passes": 40, "seconds": 0.5, "content": f"{images.index(image):016x}"}
            row |= {"still_falling": 1.0, "passes_to_try": 80.0} if layer == "relu3" else {"still_falling": 0.0}
            if layer in BOXES:
                row["boxes"] = BOXES[layer]
            curve = [(at, {"error": error * (1 + 40 - at), "energy": 1.0}) for at in (0, 20, 40)]
            noise = torch.rand(3, 40, 64)
            results.save(Finished(row, curve, (tone + 0.2 * noise).clamp(0, 1)), "clip")
    if restarts > 1:
        spread = {"restarts": restarts, "spread_lpips": float("nan"), "spread_code": 0.01, "remark": ""}
        depth = 1 + list(FIELDS).index(layer)
        results.save_spreads(
            [{"image": i, "spread_ssim": 0.1 * depth + 0.01 * k, **spread} for k, i in enumerate(images)]
        )
    results.compact(float("nan"), images)
    export(results)
    config = {
        "name": "net",
        "layer": layer,
        "rep": {"_target_": "x", "layer": layer},
        "prior": {"tv": {"weight": weight}},
        "objective": {"region": "1x1@0x1" if layer in BOXES else None},
        "restarts": restarts,
        "seed": 0,
        "display": "clip",
        "used": {"rep": "net", "layer": layer, "prior": "natural", "tv_weight": weight, "passes": 40}
        | {"receptive_field": FIELDS[layer], "stride": 8, "start": [-4, -4]}
        | {"start_noise": {"noise": "natural", "start": 0.1, "sigma": "auto", "margin": 0, "mean": [0.5] * 3}}
        | used,
        "provenance": {"command": f"train.py layer={layer}", "commit": "0123456789abcdef"},
    }
    results.save_config(OmegaConf.create(config))
    return results


def error_of(layer: str, image: int, restart: int) -> float:
    """Return the error that :func:`made_job` gives: a depth's times a photo's times a restart's."""
    return 0.01 * (1 + list(FIELDS).index(layer)) * (1 + image) * (1 + 0.1 * restart)


def made_sweep(place: Path, layers: list[str], images: list[str], weights: tuple[float, ...] = (5.0,)) -> Path:
    """Write jobs, and a sweep's word of them and of one that failed before it had a folder."""
    sweep = place / "sweeps" / "now"
    (sweep / "jobs").mkdir(parents=True)
    jobs = [(layer, weight) for weight in weights for layer in layers]
    for number, (layer, weight) in enumerate(jobs):
        results = made_job(place, layer, images, weight=weight)
        word = {"overrides": [f"layer={layer}", f"prior.tv.weight={weight}"], "status": "done", "message": None}
        word |= {"folder": f"../../{results.folder.name}", "values": {"layer": layer, "prior.tv.weight": weight}}
        OmegaConf.save(OmegaConf.create(word), sweep / "jobs" / f"{number:03d}.yaml")
    word = {"overrides": ["layer=fc9", "prior.tv.weight=5.0"], "status": "failed", "folder": None}
    word |= {"values": {"layer": "fc9", "prior.tv.weight": 5.0}, "message": "There is no layer 'fc9' <b>here</b>."}
    OmegaConf.save(OmegaConf.create(word), sweep / "jobs" / f"{len(jobs):03d}.yaml")
    return sweep
