"""A class by the name of its file: `flipside/generators/coin.py` holds the generator `coin`; no list names it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any, TypeVar

Base = TypeVar("Base")


class PluginError(ValueError):
    """A name for which there is no file, or a file that doesn't define exactly one class of the kind wanted."""


def find_class(package: str, name: str, base: type[Base]) -> type[Base]:
    """The one concrete subclass of `base` that is defined in `<package>/<name>.py`.

    Raises PluginError where there is no such file, or no such class in it, or several.
    """
    module_name, file = f"{package}.{name}", f"{package.replace('.', '/')}/{name}.py"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        folder = importlib.import_module(package).__path__
        known = [module.name for module in pkgutil.iter_modules(folder) if not module.ispkg]
        raise PluginError(f"{file} not found; known are: {', '.join(known)}") from None
    found: list[Any] = [value for value in vars(module).values()
                        if inspect.isclass(value) and value.__module__ == module_name
                        and issubclass(value, base) and not inspect.isabstract(value)]
    if len(found) != 1:
        names = ", ".join(each.__name__ for each in found) or "none"
        raise PluginError(f"{file} must define one concrete subclass of {base.__name__}, it has {names}")
    return found[0]
