"""List the layers of a network in a table, for ``layer=list``."""

from __future__ import annotations

import math

from rich.table import Table

from invrep.errors import InvrepError
from invrep.representations.network import Network
from invrep.representations.tracing.value_names import TOKENS

# Functions that only rearrange values. Their outputs are layers too, but would crowd the table.
_ARRANGING = {"getitem", "view", "reshape", "flatten", "permute", "transpose", "contiguous", "unbind", "chunk", "split"}
_ARRANGING |= {"expand", "squeeze", "unsqueeze", "detach", "to", "clone", "unflatten", "movedim", "float", "type"}


def layers_table(network: Network) -> Table:
    """Return the layers of a network in the order of a forward pass, for one image of its published size.

    The columns are name, alias, shape of the code, receptive field, stride and cost. Field and stride are in pixels,
    for convolutional networks only. The cost is that of one forward and backward pass to the layer, in GFLOP.

    Raises:
        InvrepError: the network cannot be traced.
    """
    height, width = network.published_size
    try:
        trace = network.published_trace
    except Exception as error:
        raise InvrepError(f"The layers of {network.name} cannot be listed: {error}") from error
    if trace.error is not None:
        raise InvrepError(f"The layers of {network.name} at {height}×{width} pixels cannot be listed: {trace.error}")
    tokens = any(name.endswith(TOKENS) for name in trace.layers)
    table = Table(
        title=f"{network.name} at {width}×{height} px",
        title_justify="left",
        caption="Add .cls or .patches to a layer of tokens for those alone." if tokens else None,
        caption_justify="left",
        box=None,
        header_style="bold",
    )
    table.add_column("layer", overflow="fold")
    table.add_column("alias", overflow="fold")
    for heading in ("shape", "field", "stride", "GFLOP"):
        table.add_column(heading, justify="right", no_wrap=True)
    modules = {path for path, _ in network.module.named_modules(remove_duplicate=False)}
    others: dict[str, list[str]] = {}
    for alias, path in network.aliases.items():
        others.setdefault(path, []).append(alias)
    for number, path in enumerate(network.numbers, 1):
        others.setdefault(path, []).append(str(number))
    for name, layer in sorted(trace.layers.items(), key=lambda item: item[1].end):
        base = name.rpartition(".")[2].rstrip("0123456789").rstrip("_")
        if not layer.shapes or name.endswith(TOKENS) or (name not in modules and base in _ARRANGING):
            continue
        shapes = " ".join("×".join(map(str, shape[1:])) or "1" for shape in layer.shapes)
        seen = layer.receptive_field
        table.add_row(
            name or "output",
            " ".join(others.get(name, ())),
            shapes,
            "" if seen is None else str(seen),
            "" if seen is None or layer.stride is None else str(layer.stride),
            _figures(trace.flops(name) / 1e9),
        )
    return table


def _figures(value: float) -> str:
    """Return a number with two significant digits, or more if its integer part has more."""
    return f"{value:.{max(0, 1 - math.floor(math.log10(value)))}f}" if value > 0 else "0"
