"""Measure the error at a network's other layers, which the descent did not match."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch
from jaxtyping import Float
from torch import Tensor

from invrep.errors import InvrepError
from invrep.evaluation.certificate.codes import in_passes
from invrep.representations.network import Network
from invrep.representations.norms import squared_norms
from invrep.representations.tracing.dry_run import Trace

MOST = 6  # layers


class HeldOut:
    """Compare images with a photo at the layers of a network that took no part.

    The layers are the last block at each size of the network's maps, and its output; of a network whose layers all have
    one size, such as a vision transformer, they are spread evenly over its blocks. Layers without weights are left out:
    a file may end at the matched layer.

    Args:
        phi: representation of the descent.
        size: height and width of the photos in pixels; None: the network's published input size.

    Attributes:
        names: names of the layers; none for a representation without layers.
    """

    def __init__(self, phi: Network, size: tuple[int, int] | None = None) -> None:
        trace = phi.published_trace if size is None else phi.trace(*size)
        network, paths = _at(phi, trace, _spread(trace, phi, set(phi.paths)))
        aliases = {path: alias for alias, path in phi.aliases.items()}
        self.names = [aliases.get(path, path) or "output" for path in paths]
        self._network = network.private(phi.mean.device, phi.mean.dtype) if network is not None else None

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "batch channel row column"], photo: Float[Tensor, "channel row column"]
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Return ``held_out``, the mean over the layers of ‖Φ−Φ0‖²/‖Φ0‖², and ``held_out/LAYER``, (B,) each.

        Args:
            images: images in [0, 1].
            photo: photo of their size.
        """
        if self._network is None:
            return {}
        network = self._network
        code, target = (in_passes(network, some, network) for some in (images, photo[None]))
        errors = [squared_norms(part - own) / squared_norms(own) for part, own in zip(code, target, strict=True)]
        named = {f"held_out/{name}": error.double().cpu() for name, error in zip(self.names, errors, strict=True)}
        return {"held_out": torch.stack(list(named.values())).mean(0), **named}


def _at(phi: Network, trace: Trace, paths: Sequence[str]) -> tuple[Network | None, list[str]]:
    """Return a network at as many other layers as it has weights for, and their paths; None without any.

    Args:
        phi: network at the matched layer; its weights past that layer may have been dropped.
        trace: dry run of the whole network.
        paths: paths of the layers in the order of a pass.
    """
    if (classifier := phi.classifier) is not None:
        for count in range(len(paths), 0, -1):
            with suppress(InvrepError):  # the file ends before the last of them
                return classifier(layer=[path or "output" for path in paths[:count]]), list(paths[:count])
    there = set(phi.module.state_dict(keep_vars=True))
    paths = [path for path in paths if trace.weights_up_to([path]) <= there]
    return (phi.at([path or "output" for path in paths]), paths) if paths else (None, [])


def _spread(trace: Trace, network: Network, matched: set[str]) -> list[str]:
    """Return the paths of a few layers over the whole depth of a network, in the order of a pass.

    Args:
        trace: dry run of the network.
        network: network.
        matched: paths of the layers that the descent matched.
    """
    modules = [path for path, _ in network.module.named_modules() if path]
    order = sorted((p for p in modules if _usable(trace, p)), key=lambda p: (trace.layers[p].end, -p.count(".")))
    lasts: dict[tuple[int, ...], str] = {}
    for path in (path for path in order if path.count(".") <= 1):  # blocks, no parts of them
        lasts[trace.layers[path].shapes[0][2:]] = path  # by height and width of a map; nothing of a vector
    if len(lasts) <= 3:  # maps of one size throughout
        blocks = [path for path in order if _is_block(path, order)]
        lasts |= {(-k,): path for k, path in enumerate(_evenly(blocks, MOST - 1), 1)}
    ends = {trace.layers[path].end for path in matched if path in trace.layers}
    found = {trace.layers[path].end: path for path in lasts.values()}  # equal ends: a block and its last layer
    if "" in trace.layers and "" not in matched and trace.error is None:
        found[trace.layers[""].end] = ""
    return _evenly([path for end, path in sorted(found.items()) if end not in ends and path not in matched], MOST)


def _usable(trace: Trace, path: str) -> bool:
    layer = trace.layers.get(path)
    return layer is not None and layer.calls == 1 and len(layer.shapes) == 1 and len(layer.shapes[0]) >= 2


def _is_block(path: str, paths: Sequence[str]) -> bool:
    """Return whether a module is one of at least four numbered siblings with modules inside, as blocks are."""
    parent, _, name = path.rpartition(".")
    siblings = [other for other in paths if other.rpartition(".")[0] == parent]
    inside = any(other.startswith(f"{path}.") for other in paths)
    return inside and len(siblings) >= 4 and name[-1:].isdecimal()


def _evenly(items: Sequence[str], most: int) -> list[str]:
    """Return at most so many items, evenly spread, with the last one."""
    if len(items) <= most:
        return list(items)
    return [items[round((k + 1) * len(items) / most) - 1] for k in range(most)]
