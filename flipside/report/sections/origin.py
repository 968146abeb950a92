"""What one needs to run it again: parameters, seed, data fingerprint, git revision, versions."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any, Self

import yaml

from flipside.report.inputs import ReportInputs
from flipside.report.run import git_revision, package_versions
from flipside.report.sections.section import Section


class PlainDumper(yaml.SafeDumper):
    """Writes what occurs twice out twice, where YAML would point back to the first place."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@dataclass(frozen=True)
class Origin(Section):
    """What shaped the results, from the seed to the packages' versions."""

    id = "origin"
    link = "Parameters and versions"
    heading = "Parameters and versions"

    facts: dict[str, str]
    versions: dict[str, str]
    parameters: str  # YAML

    @classmethod
    def build(cls, inputs: ReportInputs) -> Self:
        facts = {"seed": str(inputs.parameters["seed"]), "data fingerprint": inputs.store.fingerprint,
                 "git revision": git_revision(), "Python": platform.python_version(),
                 "system": f"{platform.system()} {platform.machine()}"}
        parameters = {**inputs.parameters, **inputs.made_with}
        return cls(facts, package_versions(),
                   yaml.dump(parameters, Dumper=PlainDumper, sort_keys=False, allow_unicode=True))
