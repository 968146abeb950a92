"""The page on commands: make's targets from the Makefile, `flipside …` from its typer application."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from docs.generate.tables import cell, code, table
from flipside.cli import app


def page() -> str:
    """The whole page, Markdown."""
    rows = [(code(f"make {name}"), cell(text)) for name, text in make_targets()]
    return "\n".join(["# Commands", "", "## make", "",
                      "Each of them first makes `.venv` where it is missing.", "",
                      table(("command", "what it does"), rows), "", *command_line()])


def make_targets(makefile: Path = Path("Makefile")) -> list[tuple[str, str]]:
    """Name of every phony target, with the comment that stands above it."""
    text = makefile.read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony, "Makefile has no .PHONY"
    targets = []
    for name in phony[1].split():
        found = re.search(rf"((?:^#.*\n)*)(?:^[A-Z_]+ .*\n)*^{re.escape(name)}:", text, re.MULTILINE)
        comment = found[1] if found else ""
        targets.append((name, " ".join(line.lstrip("# ") for line in comment.splitlines())))
    return targets


def command_line() -> list[str]:
    """Every sub-command of `flipside` with its arguments and options."""
    lines = ["## flipside", "", "`flipside COMMAND --help` says the same.", ""]
    for words, command in commands("flipside", typer.main.get_command(app)):
        lines += [f"### {words}", "", command.help or "", ""]
        rows = [(code(spelt(parameter)), cell(getattr(parameter, "help", None) or "")) for parameter in command.params
                if "--help" not in parameter.opts and not getattr(parameter, "hidden", False)]
        lines += [table(("argument or option", "meaning"), rows), ""] if rows else []
    return lines


def commands(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Every command below a group, with the words that call it."""
    for name, below in sorted(getattr(command, "commands", {}).items()):
        yield from commands(f"{words} {name}", below)
    if not hasattr(command, "commands"):
        yield words, command


def spelt(parameter: Any) -> str:
    """An argument or option as it is typed."""
    options = [option for option in parameter.opts if option.startswith("-")]
    if not options:
        return parameter.name.upper()
    return options[0] if getattr(parameter, "is_flag", False) else f"{options[0]} {parameter.name.upper()}"
