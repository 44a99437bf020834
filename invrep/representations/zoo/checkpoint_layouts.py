"""Find a module's weights in a checkpoint: their keys, and the prefix of their names."""

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
_AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|avg|averaged?)(?=[._])", re.IGNORECASE)  # averages over training steps
_USUAL = {"state_dict", "model", "module", ""}
_COUNTERS = "num_batches_tracked"  # batch norm's; evaluation ignores them, and old files lack them
DEPTH = 4  # levels of dictionaries within dictionaries


def weights_for(found: Any, wanted: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return a checkpoint's tensors that lie beside the wanted ones, by the module's names.

    All wanted tensors must lie behind one prefix, in their shapes. A prefix consists of keys and parts of names:
    ``model_state_dict.module._orig_mod.``. A log line names the prefix. Of several prefixes, averaged weights
    (``state_dict_ema``, ``ema_model.``) come last. Without a fitting prefix, :func:`plain_weights` chooses it.

    Args:
        found: contents of the file.
        wanted: name → tensor of the wanted shape.
        source: name of the file in messages.

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
    """Return a checkpoint's tensors by name, from ``state_dict`` or ``model``, without DataParallel's ``module.``."""
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = dict(_flat(found, DEPTH))
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return {_present(name): value for name, value in tensors.items()}


def lacking(source: str, missing: Sequence[str], there: Collection[str]) -> InvrepError:
    """Return the error about missing weights: their names, and the names that the file has."""
    has = f"; there are {_listed(list(there))}" if there else ""
    return InvrepError(f"{source} lack {_listed(missing)}, which the layers up to the one asked for need{has}.")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _flat(found: Any, depth: int, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested dictionaries, with their keys joined by dots."""
    for key, value in found.items() if isinstance(found, Mapping) else ():
        if isinstance(key, str) and isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(key, str) and depth:
            yield from _flat(value, depth - 1, f"{prefix}{key}.")


def _present(name: str) -> str:
    return _OLD_DENSENET.sub(r"\1\2", name)


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Yield each split of a name at a dot, ``("net.0.", "weight")``, and the whole name."""
    yield "", name
    yield from ((name[: dot.end()], name[dot.end() :]) for dot in re.finditer(r"\.", name))


def _same_shape(wanted: Tensor | None, tensor: Tensor) -> bool:
    return wanted is not None and wanted.shape == tensor.shape


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _chosen(fitting: Sequence[str], tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str) -> str:
    """Return one of the fitting prefixes, and log it.

    Raises:
        InvrepError: two prefixes have different tensors, and neither is an average.
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
