"""Classes that are found by the name of their file."""

import abc
import sys

import pytest

from flipside.core.plugins import PluginError, find_class


@pytest.fixture()
def package(tmp_path, monkeypatch):
    """A package `shapes` of which files can be written; its classes derive from one in `shapes_base`."""
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes/__init__.py").touch()
    (tmp_path / "shapes_base.py").write_text(
        "import abc\nclass Shape(abc.ABC):\n    @abc.abstractmethod\n    def area(self): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "shapes"
    for name in [name for name in sys.modules if name.split(".")[0] in ("shapes", "shapes_base")]:
        del sys.modules[name]


SQUARE = "from shapes_base import Shape\nclass Square(Shape):\n    def area(self): return 4\n"


def base() -> type[abc.ABC]:
    from shapes_base import Shape

    return Shape


def test_the_class_of_a_file_is_found_beside_what_it_imports_and_what_is_abstract(package):
    (package / "square.py").write_text(SQUARE)
    (package / "cube.py").write_text(
        "from shapes.square import Square\nfrom shapes_base import Shape\n"
        "class Solid(Shape): ...\nclass Cube(Solid):\n    def area(self): return 24\n")
    assert find_class("shapes", "cube", base())().area() == 24


def test_a_name_without_a_file_is_refused_with_those_that_there_are(package):
    (package / "square.py").write_text(SQUARE)
    with pytest.raises(PluginError, match=r"shapes/circle\.py not found; known are: square"):
        find_class("shapes", "circle", base())


@pytest.mark.parametrize(("code", "found"), [
    ("side = 2\n", "none"), (SQUARE + "class Oblong(Square): ...\n", "Square, Oblong")])
def test_a_file_must_define_exactly_one_class(package, code, found):
    (package / "square.py").write_text(code)
    with pytest.raises(PluginError, match=rf"shapes/square\.py must define one concrete subclass of Shape, .*{found}"):
        find_class("shapes", "square", base())


def test_a_missing_module_that_the_file_imports_is_not_taken_for_the_file(package):
    (package / "square.py").write_text("import no_such_module\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        find_class("shapes", "square", base())
