"""Invert a representation: python train.py [key=value …]; see README.md."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from invrep.errors import one_sentence


@hydra.main(version_base="1.3", config_path=str(Path(__file__).resolve().parent / "conf"), config_name="config")
def main(config: DictConfig) -> float | None:
    """Run one job of the command line or of a sweep."""
    from invrep.run import run

    return run(config)


def command() -> None:
    """Do what the command line says, or say in one sentence why not."""
    with one_sentence():
        # these imports take seconds, in which Ctrl-C is a sentence too
        from invrep.arguments import as_typed
        from invrep.ending import ending
        from invrep.launch import register
        from invrep.terminal import take_any_character

        register()
        take_any_character()
        with ending(), as_typed():
            main()


if __name__ == "__main__":
    command()
