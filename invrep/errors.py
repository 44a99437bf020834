"""The one exception for a user's mistake, and the nearest valid names to a wrong one."""

from __future__ import annotations

import difflib
import math
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from invrep.signals import STOPS, Stop, stopped_by

LAUNCHERS = ("submitit", "ray", "joblib")


NO_MEMORY = (  # what torch, CUDA, cuBLAS, cuDNN, oneDNN, C++ and the system say
    r"out of memory|(can't|cannot|could not|failed to|unable to) allocate|not enough memory|insufficient memory|"
    r"ALLOC_FAILED|bad[ _]alloc|fail at alloc_cpu|could not (create|execute) a (primitive|memory)|"
    r"can't start new thread"
)


class InvrepError(ValueError):
    """A mistake that the user can mend: the message names the thing, what was expected and what to do.

    ``train.py`` prints it as one sentence, without a traceback, and exits with status 1.

    Args:
        message: the sentence.
        details: lines that stand below it, such as one for each job of a sweep that failed.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


class UnfitError(InvrepError):
    """Images that the representation cannot take, for example too small ones; others of the job may well fit.

    Args:
        message: the sentence.
        rows: places in the batch of the images concerned; empty for all.
    """

    def __init__(self, message: str, rows: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory has run out, whichever library raised it."""
    from pytorch_lightning.utilities.memory import is_oom_error  # imports torch

    words = " ".join(map(str, error.args))
    return isinstance(error, MemoryError) or is_oom_error(error) or re.search(NO_MEMORY, words, re.I) is not None


class LayerError(InvrepError):
    """A layer that a network lacks; the network may well have those of other jobs of the sweep."""


class ToldError(InvrepError):
    """A mistake of which rank 0 tells the user: another rank only exits with status 1."""


def nearest(name: str, options: Iterable[str], count: int = 3) -> str:
    """Return the ``count`` valid names closest to ``name``, for the end of an error message.

    Returns ``"the nearest are a, b, c"``, or, where none is similar, ``"there are a, b, c, …"``.
    """
    options = list(dict.fromkeys(options))
    close = difflib.get_close_matches(name, options, n=count, cutoff=0.5)
    if close:
        return f"the nearest {'is' if len(close) == 1 else 'are'} {', '.join(close)}"
    return f"there are {', '.join(options[:20])}{', …' if len(options) > 20 else ''}"


def number(
    name: str,
    value: object,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    whole: bool = False,
    word: str | None = None,
) -> float:
    """Return ``value`` if it is a finite number in range, as an int if it has to be whole, else as a float.

    Args:
        name: the config key or argument, for the message.
        value: what the user gave.
        minimum: the least allowed value; ``above`` excludes its bound itself; ``maximum`` is the greatest.
        above: the value has to be greater than this.
        maximum: the greatest allowed value.
        whole: whether it has to be a whole number.
        word: a word that is allowed as well, for the message only.

    Raises:
        InvrepError: it is not such a number.
    """
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    good = good and (not whole or float(value).is_integer())
    good = good and (minimum is None or value >= minimum) and (above is None or value > above)
    good = good and (maximum is None or value <= maximum)
    if not good:
        bounds = [f"of at least {minimum:g}"] if minimum is not None else []
        bounds += [f"above {above:g}"] if above is not None else []
        bounds += [f"at most {maximum:g}"] if maximum is not None else []
        kind = "a whole number" if whole else "a number"
        raise InvrepError(
            f"{name}={value} is not valid: expected {' '.join([kind, ' and '.join(bounds)]).strip()}"
            f"{f' or {word!r}' if word else ''}."
        )
    return int(value) if whole else float(value)


def choice(name: str, value: object, options: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``options``.

    Raises:
        InvrepError: it is not; the message names the nearest.
    """
    options = list(options)
    if value not in options:
        raise InvrepError(
            f"{name}={value} is not valid: expected one of {', '.join(options)}; {nearest(str(value), options)}."
        )
    return str(value)


def words(error: BaseException) -> str:
    """Return an exception's own words on one line, with its kind before them: ``KeyError: 'model'``."""
    first = next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def printable(text: str) -> str:
    """Return text with control characters, which a photo's name may hold, as escapes: on one line, and harmless."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn a user's mistake, ours or Hydra's, into one sentence on stderr and exit status 1.

    A signal that ends the command is a sentence too, with the status that shells give it: 130 for Ctrl-C.
    With ``HYDRA_FULL_ERROR=1`` in the environment everything comes with its traceback instead.
    """
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        with stopped_by(*STOPS):
            yield
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints a traceback and exits before we see the exception
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
    except OSError as error:  # Hydra makes the folder of a sweep before any of our code runs
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
    """Return which launcher's own code raised an error, such as submitit's of a partition that SLURM does not have."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    package = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "").partition(".")[0]
    return package if package in LAUNCHERS else None


def _hydra_sentence(error: Exception) -> str:
    """Say what Hydra or OmegaConf did not like, with the nearest valid names."""
    text = " ".join(str(error).split())
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        if group in ("hydra/launcher", "hydra/sweeper"):
            extra = name.partition("_")[0]
            return f"{group}={name} is a plugin of Hydra that is not installed: pip install 'invrep[{extra}]'."
        if error.options:
            return f"There is no {group}={name}; {nearest(name, error.options)}."
    key = re.search(r"Could not (?:override|append to config|find) '([^']+)'|Key '([^']+)' is not in struct", text)
    if key:
        full = getattr(error.__cause__, "full_key", None)  # of a key within the one that Hydra names
        named = key.group(1) or key.group(2)
        name = (named if full is None or named.startswith(full) else full).partition("@")[0]
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


def _no_key(name: str) -> str:
    """Say that there is no such key, and which choice of its group has it, or which keys are near."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import DictConfig, OmegaConf

    from invrep.config import FOLDER, preset

    def walk(node: DictConfig, prefix: str) -> Iterator[str]:
        for name in node:
            yield f"{prefix}{name}"
            if OmegaConf.is_dict(child := node._get_node(name)) and not child._is_none():
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
