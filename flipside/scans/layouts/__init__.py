"""The layouts: each file of this folder holds one, and none is named anywhere else."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING, Annotated, TypeAlias, Union

import pydantic

from flipside.core.plugins import find_class
from flipside.scans.layout import Layout

LAYOUTS: tuple[type[Layout], ...] = tuple(
    find_class(__name__, name, Layout)  # type: ignore[type-abstract]  # the base is what is looked for
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)))

if TYPE_CHECKING:
    AnyLayout: TypeAlias = Layout  # the union is made at run time
else:
    AnyLayout = Annotated[Union[LAYOUTS], pydantic.Field(discriminator="layout")]  # noqa: UP007


class DatasetParams(pydantic.RootModel[AnyLayout]):
    """One block of `datasets`."""

    model_config = pydantic.ConfigDict(frozen=True)


class DatasetsParams(pydantic.RootModel[dict[str, AnyLayout]]):
    """The section `datasets`: name -> block."""

    model_config = pydantic.ConfigDict(frozen=True)
