"""A forward pass that ends at the last layer needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from invrep.representations.tracing.value_names import tensors_of, watching
from invrep.representations.tracing.wrapped import described


class _Stop(BaseException):
    """Ends a forward pass at the last layer needed; no Exception, lest the module's own ``except`` catches it."""


def run_to(
    module: nn.Module, images: Tensor, calls: Mapping[str, int], prefix: int
) -> tuple[dict[str, list[Tensor]], dict[str, str]]:
    """Return each layer's value of its last call, and in words those that are no tensors; nothing past them runs.

    Args:
        module: the network.
        images: as the module takes them.
        calls: path → how many times a pass calls the layer.
        prefix: how many tokens of a transformer come before those of the patches.
    """
    left = dict(calls)
    outputs: dict[str, list[Tensor]] = {}
    others: dict[str, str] = {}
    stop = _Stop()

    def keep(path: str, output: Any) -> None:
        left[path] -= 1
        if left[path] > 0:
            return
        outputs[path] = tensors_of(output)
        if not outputs[path]:
            others[path] = described(output)
        if all(count <= 0 for count in left.values()):
            raise stop
        # What runs on may write into it (an in-place ReLU or sum); the last one of all needs no copy.
        outputs[path] = [tensor.clone() for tensor in outputs[path]]

    with watching(module, keep, left.keys(), prefix=prefix):
        try:
            module(images)
        except _Stop as caught:
            if caught is not stop:
                raise
            # Frees the frames of the pass, which hold its tensors, and with torch 2.11 a checkpoint's hooks too.
            caught.__traceback__ = None
    return outputs, others
