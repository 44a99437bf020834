"""Compute receptive fields: the image area that an operation's output sees, from the areas of its inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

from invrep.representations.geometry import Geometry

aten = torch.ops.aten
N = TypeVar("N", int, float)
WHOLE = Geometry((math.inf, math.inf), None)
# Values of these operations see nothing: they take the shape of their input alone, for example to count a window's
# pixels.
BLIND = {
    *(aten.ones_like, aten.zeros_like, aten.full_like, aten.empty_like, aten.rand_like, aten.randn_like),
    *(aten.new_ones, aten.new_zeros, aten.new_full, aten.new_empty),
}
# Positions stay where they are. An operation outside the sets below that is no pointwise operation, convolution or
# pooling may look anywhere in the image.
_IN_PLACE = {
    aten.native_batch_norm,
    aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_no_training,
    aten.cudnn_batch_norm,
    aten.batch_norm,
    aten.hardswish_,
    aten.dropout,
    aten.detach,
    aten.contiguous,
    aten.clone,
    aten._to_copy,
    aten.alias,
}
# Positions stay where the named dimensions are not rows and columns.
_ALONG = {
    *(aten.cat, aten.split, aten.split_with_sizes, aten.unbind, aten.select, aten.index_select, aten.flip, aten.roll),
    *(aten.mean, aten.sum, aten.amax, aten.amin, aten.max, aten.min, aten.prod, aten.var, aten.var_mean, aten.std),
    *(aten.linalg_vector_norm, aten.norm, aten.logsumexp, aten._softmax, aten._log_softmax, aten.cumsum),
}
# Positions stay where the last two dimensions, rows and columns, keep their sizes.
_RESHAPES = {
    *(aten.view, aten._unsafe_view, aten._reshape_alias, aten.expand, aten.unsqueeze, aten.squeeze, aten.stack),
}
_PADDINGS = {aten.constant_pad_nd, aten.reflection_pad2d, aten.replication_pad2d}


def after(func: Any, args: Any, kwargs: Any, output: Any, before: Geometry) -> Geometry:
    """Return the image area that an operation's output sees.

    Args:
        func: operation.
        args: positional arguments of the operation.
        kwargs: keyword arguments of the operation.
        output: output of the operation.
        before: area that its inputs see.
    """
    operation = func.overloadpacket
    if torch.Tag.pointwise in func.tags or operation in _IN_PLACE:
        return before
    if before.stride is None:
        return WHOLE
    first = args[0] if isinstance(args[0], Tensor) else args[0][0]  # cat and stack take a list
    if operation in _RESHAPES:
        return before if output.shape[-2:] == first.shape[-2:] else WHOLE
    if operation in _ALONG or operation in (aten.slice, aten.permute, aten.transpose):
        return _along(func, args, kwargs, first.shape, before)
    if operation in _PADDINGS:
        margins: list[int] = list(args[1])
        left, _, top, *_ = [*margins, 0, 0, 0]
        return before._replace(start=_moved(before, (top, left)))
    window = _window(operation, args)
    if window is None:
        return WHOLE
    size, step, padding, dilation = window
    strides = before.stride
    return Geometry(
        _two(f + (k - 1) * d * s for f, k, d, s in zip(before.field, size, dilation, strides, strict=True)),
        _two(s * t for s, t in zip(strides, step, strict=True)),
        _moved(before, padding),
    )


def _two(values: Iterable[N]) -> tuple[N, N]:
    first, second = values
    return first, second


def _along(func: Any, args: Any, kwargs: Any, shape: torch.Size, before: Geometry) -> Geometry:
    """Return the area seen after an operation along some dimensions of a tensor of this shape."""
    defaults = {argument.name: argument.default_value for argument in func._schema.arguments}
    given = defaults | dict(zip(defaults, args, strict=False)) | kwargs
    ndim = len(shape)
    if func.overloadpacket is aten.permute:
        moved = [at for at, dim in enumerate(given["dims"]) if dim % ndim != at]
    elif func.overloadpacket is aten.transpose:
        moved = [given["dim0"], given["dim1"]]
    else:
        dims = given.get("dim", given.get("dims"))
        if dims is None or dims == []:  # all dimensions
            return WHOLE
        moved = [dims] if isinstance(dims, int) else dims
    spatial = [dim % ndim - (ndim - 2) for dim in moved if dim % ndim >= ndim - 2]
    if func.overloadpacket is not aten.slice or not spatial:
        return WHOLE if spatial else before
    (axis,), side = spatial, shape[given["dim"]]
    first = given["start"] or 0
    stride, start = list(before.stride or ()), list(before.start)
    start[axis] += stride[axis] * min(max(first + side * (first < 0), 0), side)
    stride[axis] *= given["step"]
    return Geometry(before.field, _two(stride), _two(start))


def _moved(before: Geometry, padding: tuple[int, int]) -> tuple[int, int]:
    return _two(begin - pad * step for begin, pad, step in zip(before.start, padding, before.stride or (), strict=True))


def _window(operation: Any, args: Any) -> tuple[tuple[int, int], ...] | None:
    """Return kernel size, stride, padding and dilation of a 2D convolution or pooling; None for other operations."""

    def pair(values: Any) -> tuple[int, int]:
        return (values[0], values[-1]) if isinstance(values, (list, tuple)) else (values, values)

    if operation is aten.convolution and args[1].ndim == 4 and not args[6]:
        return tuple(args[1].shape[2:]), pair(args[3]), pair(args[4]), pair(args[5])
    if operation in (aten.max_pool2d_with_indices, aten.avg_pool2d):
        kernel = pair(args[1])
        step = pair(args[2]) if len(args) > 2 and args[2] else kernel
        padding = pair(args[3]) if len(args) > 3 else (0, 0)
        dilated = operation is aten.max_pool2d_with_indices and len(args) > 4
        return kernel, step, padding, pair(args[4]) if dilated else (1, 1)
    if operation in (aten._adaptive_avg_pool2d, aten.adaptive_avg_pool2d, aten.adaptive_max_pool2d):
        shares = [divmod(side, wanted) for side, wanted in zip(args[0].shape[-2:], pair(args[1]), strict=True)]
        if all(rest == 0 for _, rest in shares) and (pair(args[1]) != (1, 1) or args[0].shape[-2:] == (1, 1)):
            kernel = tuple(share for share, _ in shares)
            return kernel, kernel, (0, 0), (1, 1)
    if operation is aten.avg_pool3d and tuple(args[1])[1:] == (1, 1):  # torch's local response normalisation
        return (1, 1), pair((args[2] or args[1])[1:] if len(args) > 2 else (1, 1)), (0, 0), (1, 1)
    return None
