"""Complete groups and keys by Tab: Hydra's completion, extended by choices in a group's folders (experiments)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any
from unittest.mock import patch

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.object_type import ObjectType

FLAGS = ("-sc", "--shell-completion")
_of_one_folder = ConfigLoaderImpl.get_group_options


@contextmanager
def completing(words: Sequence[str]) -> Iterator[None]:
    """Extend Hydra's completion inside this context, if ``words`` ask for completion.

    Hydra lists only the files directly in a group's folder, so that ``experiment=`` would find nothing. Errors are
    silenced, since they would appear in the line being typed.

    Args:
        words: arguments of the command line.
    """
    if not any(word in FLAGS for word in words):
        yield
        return
    with (
        patch.object(ConfigLoaderImpl, "get_group_options", _options),
        open(os.devnull, "w") as nowhere,
        redirect_stderr(nowhere),
    ):
        yield


def _options(
    self: ConfigLoaderImpl, group_name: str, results_filter: ObjectType = ObjectType.CONFIG, **given: Any
) -> list[str]:
    """Return the names of a group's choices or of its subgroups; replaces ``ConfigLoaderImpl.get_group_options``."""
    found = _of_one_folder(self, group_name, results_filter, **given)
    if not group_name or group_name.startswith("hydra"):
        return found
    if results_filter is ObjectType.GROUP:  # the folders' choices are listed with the group's own
        return []
    for folder in _of_one_folder(self, group_name, ObjectType.GROUP, **given):
        if folder != "base":  # holds parts that experiments share, no experiment
            found += [f"{folder}/{name}" for name in _options(self, f"{group_name}/{folder}", **given)]
    return found
