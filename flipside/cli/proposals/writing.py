"""A proposed block into datasets.yaml, a profile for it into profiles/, and the data linked into data/raw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flipside.cli.proposals.proposal import Proposal
from flipside.core.files import atomic_file
from flipside.core.params import DATASETS_FILE, ParamsError, read_datasets

GUESS = "guess: "


def write_block(name: str, block: dict[str, Any], guesses: dict[str, str]) -> None:
    """Add a block at the end of datasets.yaml, whose text stays as it is; guesses are comments.

    Raises ParamsError where the file has a block of this name.
    """
    if name in read_datasets()["datasets"]:
        raise ParamsError(f"{DATASETS_FILE} has a block {name!r} already: give another --name, or remove the block")
    text = DATASETS_FILE.read_text().rstrip("\n")
    with atomic_file(DATASETS_FILE) as temporary:
        temporary.write_text(f"{text}\n{block_text(name, block, guesses)}")


def block_text(name: str, block: dict[str, Any], guesses: dict[str, str]) -> str:
    """The block as datasets.yaml has it, each guess as a comment behind its key."""
    lines = [f"  {name}:"]
    for key, value in block.items():
        line = f"    {key}: {in_yaml(value)}"
        lines.append(f"{line}  # {GUESS}{guesses[key]}" if key in guesses else line)
    return "\n".join(lines) + "\n"


def in_yaml(value: Any) -> str:
    """A value on one line of YAML."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def write_profile(name: str, values: dict[str, Any]) -> Path:
    """profiles/<name>.yaml, which makes params.yaml fit the data set."""
    file = Path("profiles") / f"{name}.yaml"
    if file.exists():
        raise ParamsError(f"{file} exists already: give another --name, or remove it")
    lines = [f"# Written by `flipside init` for the data set {name}.", "extends: cpu",
             *(f"{key}: {in_yaml(value)}" for key, value in values.items())]
    with atomic_file(file) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    return file


def profile_values(name: str, proposal: Proposal) -> dict[str, Any]:
    """What differs from the profile cpu."""
    values: dict[str, Any] = {"dataset": name, "simulated.scans": []}
    if proposal.has_split:
        values["filter.use_given_split"] = True
    return values


def link_data(folder: Path, name: str) -> str:
    """Make data/raw/<name> lead to the folder; says what was done. Raises ParamsError where something else is there."""
    link = Path("data/raw") / name
    if link.exists() and link.resolve() == folder.resolve():
        return f"{link} is the folder"
    if link.exists() or link.is_symlink():
        raise ParamsError(f"{link} exists and leads to {link.resolve()}, not to {folder}: give another --name, or "
                          "remove it")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(folder.resolve())
    return f"{link} -> {folder.resolve()} (a link; nothing was copied)"
