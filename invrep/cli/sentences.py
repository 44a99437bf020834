"""Print a user's mistake, found by this program or by Hydra, as one sentence."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from invrep.errors import InvrepError, ToldError, nearest
from invrep.jobs.signals import STOPS, Stop, stopped_by
from invrep.messages import printable

LAUNCHERS = ("submitit", "ray", "joblib")


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn a user's mistake into one sentence on stderr and exit status 1.

    A signal that ends the command also becomes a sentence, with the shells' status, 130 for Ctrl-C. With
    ``HYDRA_FULL_ERROR=1`` in the environment, exceptions keep their tracebacks.

    Raises:
        SystemExit: after the sentence is printed. Other exceptions, faults of the program, pass through.
    """
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        with stopped_by(*STOPS):
            yield
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints the error itself and exits
    details: Sequence[str] = ()
    status = 1
    try:
        with stopped_by(*STOPS):
            yield
    except ToldError:
        raise SystemExit(1) from None
    except InvrepError as error:
        message, details = str(error), error.details
    except (HydraException, OmegaConfBaseException) as error:
        message = _hydra_sentence(error)
    except OSError as error:  # Hydra makes a sweep's folder before our code runs
        if error.filename is None:
            raise
        message = f"{error.filename} cannot be read or written ({error.strerror}); choose another folder with output=."
    except Exception as error:
        if (launcher := _launcher_of(error)) is None:
            raise
        message = f"{launcher} could not start the jobs of the sweep: {' '.join(str(error).split())}"
    except KeyboardInterrupt as error:
        stop = error if isinstance(error, Stop) else Stop(signal.SIGINT)
        message, status = str(stop), stop.status
    else:
        return
    finally:
        del os.environ["HYDRA_FULL_ERROR"]
    for line in (f"error: {message}", *details):
        print(printable(line), file=sys.stderr)
    raise SystemExit(status)


def _launcher_of(error: Exception) -> str | None:
    """Return the launcher whose code raised an error, such as submitit's about an unknown partition; None if none."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    package = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "").partition(".")[0]
    return package if package in LAUNCHERS else None


def _hydra_sentence(error: Exception) -> str:
    """Return the sentence for an exception of Hydra or OmegaConf, with the nearest valid names."""
    text = " ".join(str(error).split())
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if group in ("hydra/launcher", "hydra/sweeper"):
            extra = name.partition("_")[0]
            return f"{group}={name} is a plugin of Hydra that is not installed: pip install 'invrep[{extra}]'."
        if error.options:
            return f"There is no {group}={name}; {nearest(name, error.options)}."
        group, _, name = str(error.missing_cfg_file).partition("/")
        if names := _below(group):  # Hydra lists no choices of a folder within a group
            return f"There is no {group}={name}; {nearest(name, names)}."
    key = re.search(r"Could not (?:override|append to config|find) '([^']+)'|Key '([^']+)' is not in struct", text)
    if key:
        full = getattr(error.__cause__, "full_key", None)  # a key below the one that Hydra names
        named = key.group(1) or key.group(2)
        group, _, package = (named if full is None or named.startswith(full) else full).partition("@")
        name = package if "." in package else group  # rep@rep.descriptor was typed as rep.descriptor
        return _no_key(name)
    missing = re.search(r"Missing mandatory value: (\S+)", text)
    if missing:
        return f"{missing.group(1)} is missing; give it as {missing.group(1)}=VALUE."
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!r} cannot be read as key=value ({text.partition(' See ')[0]}); quote values with spaces, "
            f"commas or parentheses, as in \"data.path='a b.jpg'\"."
        )
    return text


def _below(group: str) -> list[str]:
    """Return the choices of a group that has folders, such as ``cvpr15/fig1`` of ``experiment``; none of another."""
    from invrep.presets import FOLDER

    files = (path.relative_to(FOLDER / group).with_suffix("") for path in (FOLDER / group).glob("*/*.yaml"))
    return sorted(path.as_posix() for path in files if path.parent.name != "base")


def _no_key(name: str) -> str:
    """Return the sentence for an unknown key, with the choices of its group that have it or the nearest keys."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import DictConfig

    from invrep.presets import FOLDER, preset

    def walk(node: DictConfig, prefix: str) -> Iterator[str]:
        for name in map(str, node):
            yield f"{prefix}{name}"
            if isinstance(child := node._get_node(name), DictConfig) and not child._is_none():
                yield from walk(child, f"{prefix}{name}.")

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(FOLDER.resolve()), version_base="1.3"):
        keys = [key for key in walk(compose("config"), "") if "_target_" not in key and "_partial_" not in key]
    group, dot, _ = name.partition(".")
    others: dict[str, set[str]] = {}
    for path in sorted((FOLDER / group).glob("*.yaml")) if dot else ():
        others[path.stem] = set(walk(preset(group, path.stem), f"{group}."))
    having = [f"{group}={choice}" for choice, its in others.items() if name in its]
    if having:
        more = ", …" if len(having) > 6 else ""
        return f"The chosen {group} has no key {name!r}, which is one of {', '.join(having[:6])}{more}."
    return f"There is no config key {name!r}; {nearest(name, [*keys, *sorted(set().union(*others.values()))])}."
