"""Certify finished jobs, or the pictures of any tool, from the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invrep.cli.arguments import arguments as translated
from invrep.cli.sentences import one_sentence
from invrep.errors import InvrepError

if TYPE_CHECKING:
    from omegaconf import DictConfig

REPLACED = ("data.path", "data.root", "rep.weights")  # keys of a job's record that may have moved since


def certify(arguments: Sequence[str] | None = None) -> None:
    """Run ``invrep certify …``: add certificates to finished jobs, or score pictures.

    Args:
        arguments: arguments after ``certify``; None: those of the process.

    Raises:
        SystemExit: an argument is wrong (status 2), or nothing can be certified (status 1).
    """
    parser = argparse.ArgumentParser(
        prog="invrep certify",
        usage="invrep certify JOB… [certificate.KEY=VALUE …]\n"
        "       invrep certify --pictures FOLDER rep=… data.path=… [KEY=VALUE …]",
        description="Say whether a representation takes pre-images for their photos, and whether anything else does.",
    )
    parser.add_argument("words", nargs="*", metavar="JOB or KEY=VALUE", help="folders of jobs or of a sweep; settings")
    parser.add_argument("--pictures", type=Path, help="folder of pictures of any tool, named as their photos")
    given = parser.parse_intermixed_args(arguments)
    places = [Path(word) for word in given.words if "=" not in word]
    settings = translated([word for word in given.words if "=" in word])
    if not places and given.pictures is None:
        parser.error("give the folder of a finished job, or --pictures FOLDER")
    with one_sentence():
        if given.pictures is not None:
            if places:
                raise InvrepError(
                    f"--pictures and the job {places[0]} exclude each other; certify one after the other."
                )
            _certify_pictures(given.pictures, settings)
        else:
            _certify_jobs(places, settings)


def _certify_jobs(places: Sequence[Path], settings: Sequence[str]) -> None:
    from omegaconf import OmegaConf

    from invrep.jobs.finished import certify_finished
    from invrep.reporting.comparison import find_runs
    from invrep.reporting.terminal import make_console

    own = [word for word in settings if word.startswith("certificate.")]
    moved = [word for word in settings if word.partition("=")[0] in REPLACED]
    if others := [word for word in settings if word not in (*own, *moved)]:
        raise InvrepError(
            f"invrep certify JOB takes certificate.null, certificate.networks, certificate.lpips and "
            f"{', '.join(REPLACED)}, not {others[0]}; a job's other settings are in its record."
        )
    replaced = OmegaConf.from_dotlist([word.replace("'", "") for word in moved])
    values = {key: OmegaConf.select(replaced, key) for key in REPLACED if OmegaConf.select(replaced, key) is not None}
    console = make_console()
    for run in find_runs(places):
        if run.rows:
            certify_finished(run.results, _composed(own), console, values)


def _certify_pictures(folder: Path, settings: Sequence[str]) -> None:
    from invrep.jobs.finished import certify_pictures
    from invrep.reporting.terminal import make_console

    certify_pictures(folder, _composed(settings), make_console())


def _composed(settings: Sequence[str]) -> DictConfig:
    """Return the config of a job with a certificate, as the command line would compose it."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    from invrep.presets import FOLDER

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(FOLDER.resolve()), version_base="1.3"):
        config = compose("config", ["certificate='true'", *settings], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            config.name = config.name  # resolved while hydra's node is there
            del config.hydra
    return config
