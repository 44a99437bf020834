"""Load presets of the config groups by name, and build the objects that config nodes describe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from invrep.errors import InvrepError, nearest, words
from invrep.importing import find_here

PACKAGE = Path(__file__).parent
# a clone has conf/ beside the package, an installed wheel inside it
FOLDER = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


def preset(group: str, name: str) -> DictConfig:
    """Return a preset of a config group, such as ``preset("prior", "cvpr15")``, with its defaults merged in.

    Args:
        group: folder of ``conf``.
        name: name of a file in that folder, without ``.yaml``.

    Raises:
        InvrepError: the group has no such preset; the message names the nearest.
    """
    path = FOLDER / group / f"{name}.yaml"
    if not path.is_file():
        names = sorted(p.stem for p in (FOLDER / group).glob("*.yaml"))
        raise InvrepError(f"There is no {group} {name!r}; {nearest(name, names)}.")
    own = cast(DictConfig, OmegaConf.load(path))
    parents = [found for parent in own.pop("defaults", []) if (found := _parent(group, parent)) is not None]
    return cast(DictConfig, OmegaConf.merge(OmegaConf.create({}), *parents, own))


def _parent(group: str, parent: Any) -> DictConfig | None:
    """Return what an entry of a preset's defaults contributes; None for itself and for overrides of other groups.

    The entry ``/rep@descriptor: dsift`` puts the preset ``dsift`` of the group ``rep`` below the key ``descriptor``.
    """
    if isinstance(parent, str):
        return None if parent == "_self_" else preset(group, parent)
    for key, name in parent.items():
        above, at, package = str(key).removeprefix("/").partition("@")
        if at and not above.startswith("override "):
            return OmegaConf.create({package: preset(above, name)})
    return None


def build(config: DictConfig | Mapping[str, Any], **kwargs: Any) -> Any:
    """Instantiate a config node by its ``_target_``, which may be a class in a file of the working folder.

    Args:
        config: node with ``_target_`` and its arguments.
        kwargs: further arguments of the target.

    Raises:
        InvrepError: an argument is wrong or unknown; an InvrepError of the target keeps its message.
    """
    find_here()
    try:
        return instantiate(config, _convert_="object", **kwargs)
    except InstantiationException as error:
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, InvrepError):
            cause = cause.__cause__
        if isinstance(cause, InvrepError):
            raise cause from None
        raise InvrepError(f"The config's {dict(config).get('_target_')} cannot be built: {words(cause)}") from error
