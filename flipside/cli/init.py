"""A data set's block from a look at its folder."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flipside.cli.proposals.proposal import Proposal
    from flipside.cli.proposals.survey import Survey
    from flipside.scans.layout import Layout


def init(
    folder: Annotated[Path, typer.Argument(help="The folder with your scans; it is only read.")],
    name: Annotated[str | None, typer.Option(
        help="Name of the data set; without it, the folder's.", show_default=False)] = None,
    table: Annotated[str | None, typer.Option(
        help="CSV or Parquet file in the folder that lists the scans.", show_default=False)] = None,
    healthy: Annotated[list[str] | None, typer.Option(
        help="A class (value in the table, name of a folder) that is healthy; may be given several times.",
        show_default=False)] = None,
) -> None:
    """Propose and write a block for a folder of scans.

    Looks at the folder, says what it found and what it would leave out, and writes a block into datasets.yaml and a
    profile into profiles/. What is a guess says so.
    """
    from flipside.cli.proposals import survey as surveys
    from flipside.cli.proposals import writing
    from flipside.cli.proposals.description import describe, guess_modality
    from flipside.core.params import ParamsError
    from flipside.scans.layout import refuse_linked_folders

    name = name or re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ParamsError(f"{name!r} is no name for a data set: give --name with letters, digits and _")
    if not folder.is_dir():
        raise ParamsError(f"{folder} is no folder")
    refuse_linked_folders(name, folder)
    survey = surveys.look_at(folder)
    print(f"{folder} holds {survey.in_words()}.\n")
    proposal = choose(survey, None if table is None else table_in(folder, table), healthy or [])
    layout = checked(proposal, name, folder)
    found = layout.find_scans(name)
    description = describe(layout, found)
    modality, reason = guess_modality(survey, description)
    block = {key: value for key, value in proposal.block.items() if key == "layout"} | {
        "root": f"data/raw/{name}", "modality": modality} | {
        key: value for key, value in proposal.block.items() if value != default_of(layout, key)}
    guesses = proposal.guesses | {"modality": reason}

    # What was found, then what is written.
    print(f"Layout {block['layout']}: {len(found)} scans.")
    patients = {scan.patient for scan in found} - {""}
    lines = [("labels", labels_in_words([scan.class_label for scan in found])),
             *([("patients", str(len(patients)))] if patients else []), *description.in_words(),
             ("window", window_in_words(modality))]
    print("\n".join(f"  {key}: {text}" for key, text in lines))
    for note in proposal.notes:
        print(f"note: {note}")
    for error in description.failed[:3]:
        print(f"warning: {error}")
    if description.failed:
        print(f"warning: {len(description.failed)} of the scans that were tried can't be read; with extract.on_error: "
              "skip they are left out, else the first one stops the run")
    if description.failed and not description.lows:
        raise ParamsError("no scan that was tried could be read: nothing was written")
    if survey.others:
        print(f"note: {len(survey.others)} files of other kinds are left out, such as {survey.others[0]}")
    print(f"\n{writing.block_text(name, block, guesses)}")
    linked = writing.link_data(folder, name)
    profile = writing.write_profile(name, writing.profile_values(name, proposal))
    writing.write_block(name, block, guesses)
    print(f"Written: the block above into datasets.yaml, {profile}, {linked}. Look at each guess, then:\n\n"
          f"  flipside profile {name}    # params.yaml for this data set\n"
          f"  flipside check {' ' * len(name)}      # the slices on a contact sheet; trains nothing\n"
          f"  dvc repro {' ' * len(name)}           # the whole pipeline")


def table_in(folder: Path, table: str) -> PurePosixPath:
    """A table's path below the folder. Raises ParamsError where it is not there."""
    from flipside.core.params import ParamsError

    for path in (folder / table, Path(table)):
        if path.is_file():
            if folder.resolve() in path.resolve().parents:
                return PurePosixPath(path.resolve().relative_to(folder.resolve()).as_posix())
            raise ParamsError(f"{path} lies outside of {folder}: copy it there, so that DVC watches it with the scans")
    raise ParamsError(f"--table {table}: no such file in {folder}")


def choose(survey: Survey, table: PurePosixPath | None, healthy: list[str]) -> Proposal:
    """The first layout that fits. Raises ParamsError, with the reason of each that doesn't, where none does."""
    from flipside.cli.proposals.from_folders import propose_classes, propose_masks
    from flipside.cli.proposals.from_table import propose_table
    from flipside.cli.proposals.from_volumes import propose_volumes
    from flipside.core.params import ParamsError

    found, reasons = propose_table(survey, table, healthy)
    if found:
        return found
    if table is None:
        for propose in (lambda: propose_masks(survey), lambda: propose_classes(survey, healthy),
                        *([] if survey.dicom else [lambda: propose_volumes(survey)])):
            proposal = propose()
            if not isinstance(proposal, str):
                proposal.notes += reasons[: len(survey.tables)]
                return proposal
            reasons.append(proposal)
    if survey.dicom:
        reasons.append(f"{len(survey.dicom)} DICOM files, but no labels: make a table with a row for each series (the "
                       "path of its folder) or image, and the columns path and label (and mask, for masks in NIfTI)")
    raise ParamsError("no layout fits, nothing was written: " + "; ".join(reasons) + ". A CSV in the folder with the "
                      "columns path and label (0 healthy, 1 abnormal) always does")


def checked(proposal: Proposal, name: str, folder: Path) -> Layout:
    """The proposed block as its layout, with the folder as it lies now."""
    from flipside.scans.layouts import DatasetParams

    return DatasetParams.model_validate(proposal.block | {"root": str(folder)}).root


def default_of(layout: Layout, key: str) -> object:
    """What a key of the block is where it isn't given."""
    return type(layout).model_fields[key].default


def window_in_words(modality: str) -> str:
    """Which intensities become black and white with `filter.window: auto`."""
    from flipside.cohort.selection import FilterParams
    from flipside.core.params import load_section

    params = load_section("filter", FilterParams)
    if modality == "ct":
        return f"{params.ct_window[0]:g} to {params.ct_window[1]:g} HU (filter.ct_window)"
    low, high = params.scan_percentiles
    return f"percentiles {low:g} to {high:g} of each scan's own foreground (filter.scan_percentiles)"


def labels_in_words(labels: list[int | None]) -> str:
    """How many scans of each class."""
    from flipside.scans.scan import UNLABELLED

    counts = [(labels.count(0), "healthy"), (labels.count(1), "abnormal"),
              (labels.count(UNLABELLED), "labelled slice by slice by their masks"),
              (labels.count(None), "without a label, which are left out")]
    return ", ".join(f"{count} {text}" for count, text in counts if count)
