"""Translate the command line, as people and W&B's agents type it, into Hydra's syntax."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from invrep.errors import InvrepError

HYDRA = ("help", "hydra-help", "version", "resolve", "run", "multirun", "shell-completion", "info")
VALUED = ("cfg", "package", "config-path", "config-name", "config-dir", "experimental-rerun")  # flags with a value
SHORT = ("-c", "-p", "-cp", "-cn", "-cd")  # short forms of VALUED
QUIET = ("-q", "--quiet")  # flags of ours
# keys of file and folder names
TEXT = (
    *("data.path", "data.root", "output", "name", "rep.weights", "rep.vocabulary", "rep.descriptor.weights"),
    *("certificate.null", "certificate.lpips"),
)
GROUPS = {"rep.descriptor": "rep@rep.descriptor"}  # keys that choose a preset, and Hydra's way to write them


@contextmanager
def as_typed() -> Iterator[None]:
    """Replace ``sys.argv`` by the result of :func:`arguments`; afterwards print which arguments lost their dashes.

    Raises:
        InvrepError: an argument is invalid, see :func:`arguments`.
    """
    typed = sys.argv[1:]
    sys.argv[1:] = given = arguments(typed)
    yield
    if bare := [argument for argument in given if f"--{argument}" in typed]:
        print(f"taken without their dashes: {' '.join(bare)}", file=sys.stderr)


def arguments(typed: Sequence[str]) -> list[str]:
    """Return a command's arguments in Hydra's syntax, overrides before flags.

    W&B's agents type ``--prior.tv.weight=5`` and None; these become ``prior.tv.weight=5`` and null. Hydra's own flags
    stay and move to the end: its parser rejects overrides on both sides of a flag. A file name that Hydra would read
    as a number, as in ``data.path=2024_01_05``, is quoted. ``-q`` and ``--quiet`` become ``quiet=true``.
    ``rep.descriptor=vgg16`` becomes ``rep@rep.descriptor=vgg16``, Hydra's form for the choice of a preset.
    So does ``certificate='true'`` for ``certificate=true``.

    Args:
        typed: arguments after the command's name.

    Raises:
        InvrepError: an argument has dashes, but is neither a flag of Hydra nor ``--key=value``.
    """
    flags, overrides = [], []
    left = list(typed)
    while left:
        if left[0] in QUIET:
            overrides.append("quiet=true")
            left.pop(0)
            continue
        argument = _without_dashes(left.pop(0))
        if not argument.startswith("-"):
            overrides.append(_in_hydras_form(argument))
            continue
        flags.append(argument)
        if left and _takes(argument, left[0]):
            flags.append(left.pop(0))
    return [*overrides, *flags]


def _takes(flag: str, following: str) -> bool:
    """Return whether the argument after a flag is the flag's value."""
    if flag in ("-i", "--info"):  # the value of --info is optional
        return "=" not in following and not following.startswith("-")
    name = flag.removeprefix("--")
    return flag in SHORT or (name != flag and any(valued.startswith(name) for valued in VALUED))


def _without_dashes(argument: str) -> str:
    name, equals, value = argument.removeprefix("--").partition("=")
    # argparse accepts abbreviated flags; no key of the config is the beginning of a flag
    if not argument.startswith("--") or not name or any(flag.startswith(name) for flag in HYDRA + VALUED):
        return argument
    if not equals:
        raise InvrepError(f"{argument} is no flag of Hydra; a setting is given as {name}=VALUE, without dashes.")
    return f"{name}={_from_python(value)}"


def _from_python(value: str) -> str:
    """Return a value in Hydra's syntax from the Python syntax of W&B's agents, such as None and ``{'key': 5}``."""
    if value[:1] not in ("{", "["):
        return "null" if value == "None" else value
    return re.sub(r"\bNone\b", "null", re.sub(r"""(['"])([\w.]+)\1\s*:""", r"\2:", value))


def _in_hydras_form(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if equals and key in GROUPS and value[:1] != "{":
        return f"{GROUPS[key]}={value}"
    if key == "baseline":  # Hydra's groups have no choice null
        return f"{key}={','.join('none' if item == 'null' else item for item in value.split(','))}"
    if key == "certificate" and value.lower() == "true":  # and Hydra takes no truth value for a choice
        return "certificate='true'"
    if key.lstrip("+") not in TEXT or re.search(r"['\"\\()\[\]{}]", value):
        return argument
    items = [f"'{item}'" if _is_number(item) else item for item in value.split(",")]
    return f"{key}={','.join(items)}"


def _is_number(item: str) -> bool:
    try:
        return isinstance(OverridesParser.create().parse_override(f"key={item}").value(), bool | int | float)
    except HydraException:
        return False
