"""What `pip install .` installs: every file of the package and the pins of requirements.txt; and what the lock has."""

import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "flipside"


def pins(file):
    """{name as pip compares it: version} of a requirements file."""
    found = re.findall(r"^([\w.-]+)==([^\s;#\\]+)", (ROOT / file).read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_every_file_of_the_package_is_installed():
    listed = subprocess.run(["git", "ls-files", "flipside"], cwd=ROOT, check=True, capture_output=True, text=True)
    tracked = {ROOT / line for line in listed.stdout.splitlines()}
    code = {file for file in tracked if file.suffix == ".py"}
    assert len(tracked) > len(code) > 100
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["packages"]["find"]["include"] == ["flipside*"]  # folders with an __init__.py
    assert not [file for file in code if not (file.parent / "__init__.py").is_file()]
    data = {file for pattern in settings["package-data"]["flipside"] for file in PACKAGE.glob(pattern)}
    assert tracked - code <= data


def test_the_package_needs_what_requirements_txt_pins(monkeypatch):
    given = {}
    monkeypatch.setitem(sys.modules, "setuptools", SimpleNamespace(setup=given.update))
    runpy.run_path(str(ROOT / "setup.py"))
    extras = given["extras_require"]
    assert set(extras) == {"cluster", "dev", "docs"} and "torch==" in " ".join(given["install_requires"])
    everything = [*given["install_requires"], *(pin for name in extras for pin in extras[name])]
    assert sorted(everything) == sorted(
        line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line.split("#")[0].strip())
    assert any(pin.startswith("pytest==") for pin in extras["dev"]) and "mkdocs" in " ".join(extras["docs"])


def test_the_lock_is_of_requirements_txt():
    wanted, locked = pins("requirements.txt"), pins("requirements.lock")
    other = {name: (version, locked.get(name)) for name, version in wanted.items() if locked.get(name) != version}
    assert not other, f"run `make lock`: {other}"
    text = (ROOT / "requirements.lock").read_text()
    blocks = [block for block in re.split(r"^(?=\w)", text, flags=re.MULTILINE) if not block.startswith("#")]
    assert len(blocks) > len(wanted) and all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text  # no index


def test_the_image_is_made_with_what_the_makefile_uses():
    makefile, dockerfile = ((ROOT / name).read_text() for name in ("Makefile", "Dockerfile"))
    assert set(re.findall(r"uv==\S+", makefile)) == set(re.findall(r"uv==\S+", dockerfile)) != set()
    python = re.search(r"PYTHON \?= python(\S+)", makefile)[1]
    assert f"FROM python:{python}-" in dockerfile
