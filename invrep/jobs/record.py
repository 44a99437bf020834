"""Make the job of a finished folder again from its record, ``config.yaml``, without running code that it names."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from invrep.errors import InvrepError
from invrep.jobs.job import Job, assemble
from invrep.presets import FOLDER, preset
from invrep.results.store import Results
from invrep.stable_names import stable_name

COPIED = ("layer", "seed", "dtype", "display", "name", "restarts")
OWN_CODE = ("module",)  # parts whose record names code of the user


def job_of(results: Results, base: DictConfig, console: Console, given: Mapping[str, Any]) -> Job:
    """Return a job for the pre-images in a folder: Φ, photos and objective as in its record.

    Prior and descent are not those of the record, but for the strength of the denoiser.

    Args:
        results: folder of the finished job.
        base: composed config, which has everything else; it is changed.
        console: console for messages.
        given: values of the record that are replaced, by dotted key, such as ``data.path``.

    Raises:
        InvrepError: the folder holds no record of a job, or one that this function cannot follow.
    """
    record = results.read_config()
    if record is None or not results.rows():
        raise InvrepError(f"No finished job is in {results.folder}; expected a folder such as outputs/REP-LAYER-HASH.")
    _check(record, results)
    objective = record["objective"]
    if objective.get("part") != "match":
        raise InvrepError(
            f"The job in {results.folder} has the objective {objective.get('part')}; a certificate needs match."
        )
    noise = 0 if record.get("baseline") else (record.get("used") or {}).get("denoiser_noise") or 0
    with open_dict(base):
        for key in COPIED:
            base[key] = record.get(key, base[key])
        base.rep = restored(record["rep"], results)
        base.data = {**record["data"], "limit": None}
        base.objective = preset("objective", "match")
        base.objective.region, base.objective.channels = objective.get("region"), objective.get("channels")
        base.prior = preset("prior", "natural")
        base.prior.denoiser.noise = noise
        for key, value in given.items():
            OmegaConf.update(base, key, value)
    job = assemble(base, console)
    job.results = results
    return job


def restored(node: Any, results: Results) -> Any:
    """Return a recorded representation with the ``_target_`` of each part, by the presets of ``conf/rep``.

    Raises:
        InvrepError: the record names code of the user, or a part that no preset has.
    """
    if isinstance(node, list | tuple):
        return [restored(inner, results) for inner in node]
    if not isinstance(node, Mapping):
        return node
    found = {key: restored(value, results) for key, value in node.items() if key != "part"}
    if "part" not in node:
        return found
    targets = {} if node["part"] in OWN_CODE else _targets()
    if node["part"] not in targets:
        raise InvrepError(
            f"{results.folder} is of the representation {node['part']!r}, which runs code of yours or is of another "
            f"version; run the job's own command again with certificate=true."
        )
    return {"_target_": targets[node["part"]], **found}


def _targets() -> dict[str, str]:
    """Return the ``_target_`` of each of the project's representations by its stable name."""
    found: dict[str, str] = {}
    for path in sorted((FOLDER / "rep").glob("*.yaml")):
        target = preset("rep", path.stem).get("_target_")
        with suppress(Exception):  # an extra that is not installed
            if (name := stable_name(get_object(str(target)))) is not None:
                found[name] = str(target)
    return found


def _check(record: Mapping[str, Any], results: Results) -> None:
    """Refuse a record whose values OmegaConf would evaluate, or that names a class or function.

    Raises:
        InvrepError: there is such a value.
    """
    text = repr([record.get(key) for key in ("rep", "data", "objective", *COPIED)])
    if "${" in text or "_target_" in text:
        raise InvrepError(
            f"{results.config} names code or values of its environment, which a record is not trusted with; run the "
            f"job's own command again with certificate=true."
        )
