"""Make Φ from any layer of any network: the module runs no further than this layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from invrep.errors import InvrepError, UnfitError
from invrep.representations.base import Representation
from invrep.representations.geometry import Geometry, InputSize
from invrep.representations.stem import StemGradients
from invrep.representations.surrogate import Surrogate, smoothed
from invrep.representations.tracing.dry_run import LayerTrace, Trace, dry_run, meta_copy
from invrep.representations.tracing.early_stop import run_to
from invrep.representations.tracing.layer_names import LayerNames, NameTable
from invrep.representations.tracing.value_names import prefix_tokens
from invrep.representations.tracing.wrapped import Scripted
from invrep.validation import number

_TYPE = re.compile(r"same dtype|scalar type|\btype.* should be the same")
_SHAPE = re.compile(r"\b(shapes?|sizes?|channels?|dim(ension)?s?|height|width|resolution)\b", re.I)
KEPT_TRACES = 4  # photos may have a thousand sizes


class Network(Representation):
    """Return the code of a module at one layer or at several; nothing past them runs.

    A layer is a submodule, or a value in between (:mod:`invrep.representations.tracing.value_names`). Its code is the
    copy that a plain forward hook on the untouched module would make. A layer that is called several times has the code
    of its last call. A layer before an in-place operation has the value before the operation.

    A twin of the module runs (:func:`~.twin.twin`), in evaluation mode and without weight gradients, with the module's
    own hooks and ours. The module itself stays unchanged: :meth:`train` and :meth:`eval` do not reach it.

    Args:
        module: network; takes (B, C, H, W).
        layer: alias, name or, with ``numbers``, number of a layer; or several; or several with their weights in the
            objective; None for the module's output.
        mean: mean of the module's input; the module sees (images − mean) / std, for images in [0, 1]. A number, one per
            channel, or (C, H, W). None: nothing is subtracted, and mid-grey is the priors' zero.
        std: standard deviation of the module's input; a number or one per channel.
        channels: numbers of channels that the module takes.
        input_size: published input size of the module.
        aliases: short name → name.
        numbers: layers with a number, 1 first.
        name: name of the module in messages; by default its class.
        skeleton: whole module on the meta device, for dry runs; by default made from the module.

    Attributes:
        classes: names of the classes that the module's outputs score; None where they are not known.
        classifier: function that returns the whole module with its weights, or at other layers (``layer=``); None
            unless it was trained on classes.

    Raises:
        InvrepError: the layer does not exist, is never called, or is a number without ``numbers``.
    """

    std: Tensor
    classes: Sequence[str] | None = None
    classifier: Callable[..., Network] | None = None

    def __init__(
        self,
        module: nn.Module,
        layer: LayerNames = None,
        *,
        mean: Any = None,
        std: Any = 1.0,
        channels: tuple[int, ...] = (3,),
        input_size: InputSize | None = None,
        aliases: Mapping[str, str] | None = None,
        numbers: Sequence[str] = (),
        name: str | None = None,
        skeleton: nn.Module | None = None,
    ) -> None:
        super().__init__()
        # Exact values: a cast rounds the buffers, and a later cast must not start from rounded ones.
        self._exact = {"mean": _constant(128 / 255 if mean is None else mean), "std": _constant(std)}
        for buffer, value in self._exact.items():
            self.register_buffer(buffer, value.float(), persistent=False)
        self._centred = mean is not None
        self.channels = tuple(channels)
        self.input_size = input_size
        self.name = name or getattr(module, "original_name", None) or type(module).__name__  # TorchScript's own
        self.module = module = Scripted(module) if isinstance(module, torch.jit.ScriptModule) else module
        self.aliases = dict(aliases or {})
        self.numbers = tuple(numbers)
        self._skeleton = _Skeleton(skeleton)
        self._calls: dict[tuple[int, ...], dict[str, int]] = {}
        self._traces: dict[tuple[int, int, int], Trace] = {}
        self._prefix = prefix_tokens(module)
        if isinstance(layer, Mapping):
            self.weights = tuple(number(f"layer.{name}", weight, above=0) for name, weight in layer.items())
        self._table = NameTable(self.name, self.aliases, self.numbers)
        names = ["output"] if layer is None else self._table.listed(layer)
        self._names = [str(name) for name in names]
        self.paths = [""] if layer is None else [self._path(name) for name in names]
        if self.paths != [""] or skeleton is not None:
            self._declare()

    def encode(
        self, images: Float[Tensor, "batch channel row column"], surrogate: Surrogate | None
    ) -> list[Float[Tensor, "batch ..."]]:
        """Return the layers' outputs, a list of (B, …), in the order of the layers' names.

        Raises:
            InvrepError: the images are too small for the layer or do not fit the mean image; or the layer returns no
                floating-point tensor of shape (B, …).
        """
        if self.mean.shape[1:] not in ((1, 1), images.shape[2:]):
            raise InvrepError(
                f"{self.name} subtracts a mean image of {self.mean.shape[1]}×{self.mean.shape[2]} pixels, which images "
                f"of {images.shape[2]}×{images.shape[3]} do not fit; use data.resize=model or data.resize=squash."
            )
        mean, std = (constant.to(images) for constant in (self.mean, self.std))
        images = ((images - mean) if self._centred else images) / std
        calls = {"": 1} if self.paths == [""] else self._expected_calls(images)
        with smoothed(surrogate), StemGradients():
            outputs, others = run_to(self.module, images, calls, self._prefix)
        for path in self.paths:
            named = f"The layer {self._table.label(path)} of {self.name}"
            if not outputs.get(path):
                raise InvrepError(f"{named} {others.get(path) or self._passed_by}")
            for tensor in outputs[path]:
                if not tensor.ndim or len(tensor) != len(images):
                    raise InvrepError(
                        f"{named} does not return one part for each image: its shape is {tuple(tensor.shape)} for "
                        f"{len(images)} image{'s'[: len(images) != 1]}."
                    )
        codes = [tensor for path in self.paths for tensor in outputs[path]]
        return [code[:, None] if code.ndim == 1 else code for code in codes]  # a number is a code of one channel

    @property
    def _passed_by(self) -> str:
        if any(isinstance(child, torch.jit.ScriptModule) for child in self.module.modules()):
            return (
                "was not reached, since TorchScript calls no hooks; leave layer out, or give the module that the "
                "TorchScript was made from."
            )
        return "was not reached."

    def _refusal(self, images: Tensor, error: Exception) -> str:
        said = super()._refusal(images, error)
        if isinstance(error, TypeError) and "argument" in str(error):
            return f"{said}; wrap it in a module whose forward takes the images alone."
        if _TYPE.search(str(error)):
            return f"{said}; the module is cast to {images.dtype}: leave out the casts to other types in its forward."
        if _SHAPE.search(str(error)):
            return f"{said}; give it images of the size and channels that it takes (rep.size, rep.channels)."
        return f"{said}."

    @property
    def skeleton(self) -> nn.Module | None:
        """Return the whole module without weights; None until :meth:`trace` makes one from the module."""
        return self._skeleton.module

    def trace(self, height: int, width: int, *, channels: int | None = None) -> Trace:
        """Return a dry run of the whole module on one image of this size, without arithmetic.

        Args:
            height: height of the image in pixels.
            width: width of the image in pixels.
            channels: channels of the image; None for the first number that the module takes.

        Raises:
            Exception: deepcopy cannot copy the module.
        """
        size = (channels or self.channels[0], height, width)
        if size not in self._traces:
            if self._skeleton.module is None:
                self._skeleton.module = meta_copy(self.module)
            skeleton = self._skeleton.module
            dtype = next((p.dtype for p in skeleton.parameters() if p.is_floating_point()), None)
            while len(self._traces) >= KEPT_TRACES:
                self._traces.pop(next(iter(self._traces)))
            self._traces[size] = dry_run(skeleton, torch.empty(1, *size, dtype=dtype, device="meta"))
        return self._traces[size]

    def at(self, layer: LayerNames) -> Network:
        """Return the same module at other layers, whose weights must be there.

        Args:
            layer: layer or layers, as in the constructor.

        Raises:
            InvrepError: a layer does not exist.
        """
        return Network(
            self.module,
            layer,
            mean=self._exact["mean"] if self._centred else None,
            std=self._exact["std"],
            channels=self.channels,
            input_size=self.input_size,
            aliases=self.aliases,
            numbers=self.numbers,
            name=self.name,
            skeleton=self.skeleton,
        )

    @property
    def _shared(self) -> nn.Module:
        return self.module

    def train(self, mode: bool = True) -> Network:
        """Set this module's own flag; the network within always runs in evaluation mode."""
        self.training = mode
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Network:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        for buffer, value in self._exact.items():
            setattr(self, buffer, value.to(getattr(self, buffer).dtype).to(getattr(self, buffer).device))
        return self

    @property
    def published_trace(self) -> Trace:
        """Return :meth:`trace` at the published input size; at 224×224 where that is not known."""
        return self.trace(*self.published_size)

    @property
    def published_size(self) -> tuple[int, int]:
        """Return height and width in pixels of the published input; 224×224 where they are not known."""
        return self.input_size.crop if self.input_size else (224, 224)

    def _path(self, name: object) -> str:
        sized = self.input_size is not None
        return self._table.path(name, self.module, lambda: self.published_trace, sized=sized)

    def _declare(self) -> None:
        """Set receptive field, stride and the other facts of the code.

        Raises:
            InvrepError: a layer is never called.
        """
        try:
            trace = self.published_trace
        except Exception:  # without a copy of the module, only its first pass can tell
            return
        for path in self.paths:
            if trace.error is None and not trace.calls(path):
                raise InvrepError(
                    f"The layer {self._table.label(path)} of {self.name} is never called in evaluation mode and has "
                    "no code; name another one."
                )
        layers = [trace.layers[path] for path in self.paths if path in trace.layers]
        if len(layers) < len(self.paths):
            return
        end = max(layer.end for layer in layers)
        self.grid = max(
            (layer.stride for layer in trace.layers.values() if layer.stride and layer.end <= end), default=1
        )
        if len(layers) == 1:
            self.receptive_field, self.stride = layers[0].receptive_field, layers[0].stride
        parts = [(k, layer, part) for k, layer in enumerate(layers) for part in range(len(layer.shapes))]
        if len(parts) > 1:
            self.part_names = tuple(
                f"{self._names[k]}.{part}" if len(layer.shapes) > 1 else self._names[k] for k, layer, part in parts
            )
        if self.weights is not None:
            self.weights = tuple(self.weights[k] for k, _, _ in parts)
        self.channel_axes = tuple(_channel_axis(layer, shape) for layer in layers for shape in layer.shapes)

    def geometry(self, height: int, width: int) -> list[Geometry]:
        """Return the image area that the positions of each part of the code see.

        Args:
            height: height of the images in pixels.
            width: width of the images in pixels.

        Raises:
            UnfitError: the network does not take such images.
        """
        trace = self.trace(height, width)
        if not all(path in trace.layers for path in self.paths):
            raise UnfitError(f"{self.name} does not take images of {width}×{height} px ({trace.error}).")
        layers = [trace.layers[path] for path in self.paths]
        return [layer.geometry for layer in layers for _ in layer.shapes]

    def _expected_calls(self, images: Tensor) -> dict[str, int]:
        """Return the number of calls of each layer in a pass with these images.

        Raises:
            InvrepError: the pass cannot reach a layer.
        """
        shape = tuple(images.shape)
        if shape not in self._calls:
            self._calls[shape] = self._count_calls(images)
        return self._calls[shape]

    def _count_calls(self, images: Tensor) -> dict[str, int]:
        channels, height, width = images.shape[1:]
        here: Trace | None = None
        whole: Trace | None = None
        with suppress(Exception):
            here = self.trace(height, width, channels=channels)
            # The pass may fail past the layer, where a later one needs larger images. The published size then gives the
            # calls.
            whole = here if here.error is None else self.published_trace
        if here is not None and whole is not None:
            if here.error is None:
                for path in self.paths:
                    if not here.calls(path):
                        raise self._table.unknown(path, self.module, here)
            calls = {path: (here if whole.error else whole).calls(path) for path in self.paths}
            if all(0 < calls[path] <= here.calls(path) for path in self.paths):
                return calls
            if whole.error is None:
                raise self._misfit(height, width, channels, calls) from here.error
        # The meta device fails on an operation without a meta kernel, or on a tensor that is no parameter. A pass with
        # the images themselves counts the calls, once for each shape.
        real = dry_run(self.module, images.detach().clone())
        missing = [path for path in self.paths if not real.calls(path)]
        if missing and real.error is not None:
            raise InvrepError(
                f"{self.name} failed on images of {height}×{width} pixels before its layer "
                f"{self._table.label(missing[0])}: {_first_line(real.error)}"
            ) from real.error
        return {path: real.calls(path) for path in self.paths}

    def _misfit(self, height: int, width: int, channels: int, calls: Mapping[str, int]) -> InvrepError:
        """Return the error about images of a wrong size, with the smallest square that works.

        The search requires that the module runs at its published size.
        """
        too_small, enough = 0, max(self.published_size)
        while enough - too_small > 1:
            side = (too_small + enough) // 2
            trace = self.trace(side, side, channels=channels)
            if all(trace.calls(path) >= calls[path] for path in self.paths):
                enough = side
            else:
                too_small = side
        layers = " and ".join(self._table.label(path) for path in self.paths)
        if min(height, width) < enough:
            return InvrepError(
                f"Images of {height}×{width} pixels are too small for the layer {layers} of {self.name}; "
                f"the smallest square that works is {enough}×{enough}."
            )
        return InvrepError(
            f"The layer {layers} of {self.name} does not take images of {height}×{width} pixels; "
            f"the network was published for {self.published_size[0]}×{self.published_size[1]}."
        )


@dataclass
class _Skeleton:
    """Hold the module's copy on the meta device: not as a submodule, and shared with Φ's private twin."""

    module: nn.Module | None


def _channel_axis(layer: LayerTrace, shape: tuple[int, ...]) -> int:
    """Return the channel dimension of a code, from its shape for a square image."""
    if len(shape) == 4 and layer.stride is None and shape[1] == shape[2] != shape[3]:
        return 3  # channels last, as in Swin
    return 1 if len(shape) != 3 else 2


def _constant(value: Any) -> Tensor:
    constant = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
    return constant if constant.ndim == 3 else constant.reshape(-1, 1, 1)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
