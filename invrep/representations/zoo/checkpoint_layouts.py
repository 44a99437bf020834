"""Where in a checkpoint a module's weights lie: under which keys, and behind which prefix of their names."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from invrep.errors import InvrepError

log = logging.getLogger(__name__)
# torchvision's DenseNet files were written before its layers got their present names.
_OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")
_AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|avg|averaged?)(?=[._])", re.IGNORECASE)  # over the steps of training
_USUAL = {"state_dict", "model", "module", ""}
_COUNTERS = "num_batches_tracked"  # of batch norm, which no evaluation reads and old files lack
DEPTH = 4  # dictionaries within dictionaries


def weights_for(found: Any, wanted: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return those tensors of a checkpoint that lie with the ones that a module wants, by the module's names.

    All that is wanted has to be there in its shape behind one prefix, made of keys and of parts of names:
    ``model_state_dict.module._orig_mod.``. The prefix is said; where it is one of several, averaged weights come last
    (``state_dict_ema``, ``ema_model.``). Where none fits, it is that of :func:`plain_weights`.

    Args:
        found: what was in the file.
        wanted: tensors of the shapes that have to be there.
        source: what messages call the file.

    Raises:
        InvrepError: different tensors fit equally well.
    """
    tensors = {_present(name): tensor for name, tensor in _flat(found, DEPTH)}
    wanted = {name: tensor for name, tensor in wanted.items() if not name.endswith(_COUNTERS)}
    fits = Counter(
        prefix for name in tensors for prefix, rest in _splits(name) if _same_shape(wanted.get(rest), tensors[name])
    )
    fitting = [prefix for prefix, count in fits.items() if count == len(wanted)]
    if not fitting:
        return plain_weights(found)
    prefix = "" if "" in fitting else _chosen(fitting, tensors, wanted, source)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def plain_weights(found: Any) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, under ``state_dict`` or ``model`` and DataParallel's ``module.``."""
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = dict(_flat(found, DEPTH))
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return {_present(name): value for name, value in tensors.items()}


def lacking(source: str, missing: Sequence[str], there: Collection[str]) -> InvrepError:
    """Return the error for weights that are missing: their names, and those that are there."""
    has = f"; there are {_listed(list(there))}" if there else ""
    return InvrepError(f"{source} lack {_listed(missing)}, which the layers up to the one asked for need{has}.")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _flat(found: Any, depth: int, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in dictionaries, by their keys joined with dots."""
    for key, value in found.items() if isinstance(found, Mapping) else ():
        if isinstance(key, str) and isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(key, str) and depth:
            yield from _flat(value, depth - 1, f"{prefix}{key}.")


def _present(name: str) -> str:
    return _OLD_DENSENET.sub(r"\1\2", name)


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Yield each way to part a name at a dot, ``("net.0.", "weight")``, and the whole of it."""
    yield "", name
    yield from ((name[: dot.end()], name[dot.end() :]) for dot in re.finditer(r"\.", name))


def _same_shape(wanted: Tensor | None, tensor: Tensor) -> bool:
    return wanted is not None and wanted.shape == tensor.shape


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _chosen(fitting: Sequence[str], tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str) -> str:
    """Return the prefix to take of those that fit, and say which.

    Raises:
        InvrepError: two of them have different tensors, and neither is an average.
    """
    best = [prefix for prefix in fitting if not _AVERAGED.search(prefix)] or list(fitting)
    usual = sorted((p for p in best if _USUAL.issuperset(p.split("."))), key=lambda p: not p.startswith("state_dict"))
    first = (usual or best)[0]
    others = [p for p in fitting if any(not _equal(tensors[p + name], tensors[first + name]) for name in wanted)]
    named, also = first.removesuffix("."), _listed([prefix.removesuffix(".") for prefix in others])
    if not usual and any(prefix in best for prefix in others):
        raise InvrepError(
            f"{source} fit under {named} and under {also}, which differ; save the one that you mean alone: "
            "torch.save(WEIGHTS, 'weights.pth')."
        )
    if others:
        log.warning("%s are those under %s; there are also %s.", source, named, also)
    else:
        log.info("%s are those under %s, which is left out of their names.", source, named)
    return first
