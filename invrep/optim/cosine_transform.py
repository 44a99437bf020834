"""Compute a large cosine transform on a CPU in half the arithmetic.

Mirroring an image leaves its even frequencies as they are, and turns the sign of its odd ones. So the products with the
cosines are made for half of the pixels, once for the even frequencies and once for the odd ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


class Synthesis(torch.autograd.Function):
    """Return the image of scaled coefficients, x = rowsᵀ · (scale ⊙ z) · columns.

    The images follow one another, since one image fits into a processor's cache, and a batch does not.

    Shape:
        - z: coefficients, (B, C, H, W).
        - scale: (H, W); it gets no gradient.
        - rows, columns: cosines (:func:`~invrep.optim.bases.cosines`), (H, H) and (W, W); they get no gradient.
        - returns: (B, C, H, W).
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, scale: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the images."""
        ctx.save_for_backward(scale, rows, columns)
        images = torch.empty_like(z)
        for coefficients, image in zip(z, images, strict=True):
            _synthesise(coefficients, scale, _halves(rows), _halves(columns), out=image)
        return images

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient in the coefficients, (B, C, H, W)."""
        scale, rows, columns = ctx.saved_tensors
        found = torch.empty_like(gradient)
        for image, coefficients in zip(gradient, found, strict=True):
            _analyse(image, scale, _halves(rows), _halves(columns), out=coefficients)
        return found, None, None, None


def _halves(cosines: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosines of the even and of the odd frequencies at the first half of the pixels, (n/2, n/2) each."""
    half = cosines[:, : (len(cosines) + 1) // 2]
    return half[0::2], half[1::2]


def _synthesise(
    z: Tensor, scale: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], *, out: Tensor
) -> None:
    """Write the image of coefficients (C, H, W) into ``out``."""
    top, left = len(rows[0]), len(columns[0])
    x = torch.empty_like(z)
    for row, some in enumerate((slice(top), slice(top, None))):
        torch.mul(z[:, row::2, 0::2], scale[row::2, 0::2], out=x[:, some, :left])
        torch.mul(z[:, row::2, 1::2], scale[row::2, 1::2], out=x[:, some, left:])
    even, odd = rows[0].mT @ x[:, :top], rows[1].mT @ x[:, top:]
    torch.add(even, odd, out=x[:, :top])
    x[:, top:] = even.sub_(odd)[:, : len(rows[1])].flip(1)
    even, odd = x[..., :left] @ columns[0], x[..., left:] @ columns[1]
    torch.add(even, odd, out=out[..., :left])
    out[..., left:] = even.sub_(odd)[..., : len(columns[1])].flip(2)


def _analyse(
    x: Tensor, scale: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], *, out: Tensor
) -> None:
    """Write the coefficients of an image (C, H, W), times ``scale``, into ``out``."""
    top, left = len(rows[0]), len(columns[0])
    # The middle of an odd number of pixels is its own mirror image; it counts once.
    mirrored = functional.pad(x[..., left:].flip(2), (0, left - len(columns[1])))
    even = (x[..., :left] + mirrored) @ columns[0].mT
    odd = (x[..., :left] - mirrored) @ columns[1].mT
    for column, half in enumerate((even, odd)):
        mirrored = functional.pad(half[:, top:].flip(1), (0, 0, 0, top - len(rows[1])))
        for row, folded in enumerate((half[:, :top] + mirrored, half[:, :top] - mirrored)):
            torch.mul(rows[row] @ folded, scale[row::2, column::2], out=out[:, row::2, column::2])
