"""End a forward pass at the last layer needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from invrep.representations.tracing.value_names import tensors_of, watching
from invrep.representations.tracing.wrapped import described


class _Stop(BaseException):
    """End a forward pass at the last layer needed; no Exception, which the module's own ``except`` might catch."""


def run_to(
    module: nn.Module, images: Tensor, calls: Mapping[str, int], prefix: int
) -> tuple[dict[str, list[Tensor]], dict[str, str]]:
    """Run a module up to its last layer needed; nothing past this layer runs.

    Args:
        module: network.
        images: images, (B, C, H, W), as the module takes them.
        calls: path → number of calls of the layer in a pass.
        prefix: number of tokens before the patch tokens of a transformer.

    Returns:
        path → tensors of the layer's last call, and path → words about an output that holds no tensors.
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
        # A later operation may write into it (an in-place ReLU or sum). The last value of all needs no copy.
        outputs[path] = [tensor.clone() for tensor in outputs[path]]

    with watching(module, keep, left.keys(), prefix=prefix):
        try:
            module(images)
        except _Stop as caught:
            if caught is not stop:
                raise
            # The frames of the pass hold its tensors, and with torch 2.11 a checkpoint's hooks too.
            caught.__traceback__ = None
    return outputs, others
