"""Run the command ``invrep`` as ``python -m invrep``."""

from invrep.cli.command import command

if __name__ == "__main__":
    command()
