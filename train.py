"""Invert a representation: python train.py [key=value …]; the same as ``invrep``, see README.md."""

from invrep.cli.command import command

if __name__ == "__main__":
    command()
