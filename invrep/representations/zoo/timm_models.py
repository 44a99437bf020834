"""Build timm's models by name, cut at a layer: ConvNeXt, ViT, DINOv2, the image towers of CLIP and SigLIP, …"""

from __future__ import annotations

import copy
import math
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn

from invrep.errors import InvrepError, nearest
from invrep.representations.geometry import InputSize
from invrep.representations.network import Network
from invrep.representations.tracing.layer_names import LISTING, LayerNames
from invrep.representations.tracing.meta_init import drop_weights, initial_weights, skeleton_of
from invrep.representations.zoo.reach import cached_only, unreachable
from invrep.representations.zoo.weights import assign_weights, file_id, read_weights
from invrep.stable_names import known_as


@known_as("timm")
def timm_network(
    model: str, *, layer: LayerNames, weights: str | os.PathLike[str] = "default", seed: int = 0
) -> Network:
    """Return a timm model up to a layer, as a representation.

    Mean, standard deviation, input size, crop and interpolation come from the training of timm's weights.

    Args:
        model: timm's name, with or without the weights' tag (``vit_small_patch14_dinov2.lvd142m``).
        layer: layer as in :class:`invrep.representations.network.Network`; ``list`` or ``?`` for all, without weights.
        weights: source of the weights: ``default`` (timm's, from the Hugging Face cache or the network), ``random``, or
            the path of a .safetensors, .pth or .pt file. The file may hold just the layers used. Its names are timm's
            or, where timm can rename them, the original publication's.
        seed: seed of random weights.

    Raises:
        InvrepError: timm is not installed; there is no such model, layer or file; the weights do not fit or cannot be
            downloaded.
    """
    try:
        import timm
        from timm.data import resolve_model_data_config
    except ImportError:
        raise InvrepError(
            f"{model} comes from the package timm, which is not installed: pip install 'invrep[timm]'."
        ) from None
    _known(model)
    skeleton, order = skeleton_of(partial(timm.create_model, model, pretrained=False))
    if layer is None or layer == "???":
        names = [path for path, _ in skeleton.named_children()]
        raise InvrepError(f"{model} needs a layer, for instance layer={names[-1]}; layer=list shows all.")
    published = resolve_model_data_config(skeleton)
    module = copy.deepcopy(skeleton)
    network = Network(
        module,
        None if layer in LISTING else layer,
        mean=published["mean"],
        std=published["std"],
        channels=(published["input_size"][0],),
        input_size=_input_size(published),
        name=model,
        skeleton=skeleton,
    )
    if layer in LISTING:
        return network
    needed = network.published_trace.weights_up_to(network.paths)
    drop_weights(module, keep=needed)
    if weights == "random":
        network.weights_id = "random"
        build = partial(timm.create_model, model, pretrained=False)
        assign_weights(module, initial_weights(build, seed, order, needed), source=f"{model}'s random weights")
    elif weights == "default":
        network.weights_id = f"timm-{model}-{(getattr(skeleton, 'pretrained_cfg', None) or {}).get('tag', '')}"
        assign_weights(module, _published(model), source=f"timm's weights of {model}")
    else:
        network.weights_id, network.weights_file = file_id(weights), str(weights)
        tensors = _renamed(read_weights(weights, module.state_dict()), skeleton, needed)
        assign_weights(module, tensors, source=f"The weights in {str(weights)!r}")
    module.eval()
    if weights != "random" and (classes := _classes(skeleton)):
        network.classes = classes
        network.classifier = partial(timm_network, model, layer="output", weights=weights)
    return network


def _known(model: object) -> None:
    """Refuse a name that timm does not know.

    Raises:
        InvrepError: timm has no such model, or no weights of this tag.
    """
    import timm

    if isinstance(model, str) and timm.is_model(model.partition(".")[0]):
        tags = timm.list_pretrained(f"{model.partition('.')[0]}.*")
        if "." not in model or model in tags:
            return
        raise InvrepError(f"timm has no weights {model!r}; {nearest(model, tags or ['none for this model'])}.")
    raise InvrepError(f"timm has no model {model!r}; {nearest(str(model), timm.list_models())}.")


def _published(model: str) -> Mapping[str, Tensor]:
    """Return timm's published weights, from the Hugging Face cache or the network.

    Raises:
        InvrepError: the cache lacks the weights, and the download fails.
    """
    import timm
    from huggingface_hub import constants

    published = timm.get_pretrained_cfg(model)
    server = constants.ENDPOINT if published is None or published.hf_hub_id else str(published.url)
    why = None if constants.HF_HUB_OFFLINE else unreachable(server)
    try:
        with cached_only() if why else nullcontext():
            return timm.create_model(model, pretrained=True).state_dict()
    except Exception as error:
        reason = why or (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InvrepError(
            f"timm's weights of {model} are not in the Hugging Face cache and cannot be downloaded ({reason}); use "
            "rep.weights=random or a local file, rep.weights=path/to/file.safetensors (or .pth, .pt)."
        ) from error


def _renamed(tensors: Mapping[str, Tensor], skeleton: nn.Module, needed: set[str]) -> Mapping[str, Tensor]:
    """Return a file's tensors by timm's names; timm's own filter renames an original publication's tensors."""
    rename = getattr(sys.modules[type(skeleton).__module__], "checkpoint_filter_fn", None)
    if rename is None or needed <= tensors.keys():
        return tensors
    try:
        renamed = rename(dict(tensors), skeleton)
    except Exception:  # the filters expect whole files of known origin
        return tensors
    return renamed if len(needed & renamed.keys()) > len(needed & tensors.keys()) else tensors


def _classes(skeleton: nn.Module) -> Sequence[str] | None:
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(skeleton)
    return list(ImageNetInfo(subset).label_descriptions()) if subset else None


def _input_size(published: Mapping[str, Any]) -> InputSize:
    """Return the size in timm's data config; the crop is a part of the resized photo, or the whole (``squash``)."""
    _, height, width = published["input_size"]
    resize: Any = tuple(math.floor(side / published["crop_pct"]) for side in (height, width))
    if published["crop_mode"] != "squash":
        resize = max(resize) if published["crop_mode"] == "border" else min(resize)
    return InputSize(crop=(height, width), resize=resize, interpolation=published["interpolation"])
