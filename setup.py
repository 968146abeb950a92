"""Dependencies and extras of the package, from requirements.txt, where every pin stands once; all else is in
pyproject.toml. A line `# [dev] …` there begins the extra `dev`."""

import re
from pathlib import Path

from setuptools import setup

requirements: dict[str, list[str]] = {"": []}
section = ""
for line in Path(__file__).with_name("requirements.txt").read_text(encoding="utf-8").splitlines():
    if heading := re.match(r"# \[(\w+)\]", line):
        section = heading[1]
        requirements[section] = []
    elif pin := line.partition("#")[0].strip():
        requirements[section].append(pin)
setup(install_requires=requirements.pop(""), extras_require=requirements)
