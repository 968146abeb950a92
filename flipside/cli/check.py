"""The preparation alone, and a contact sheet of what it made, before anybody trains."""

from __future__ import annotations

import subprocess


def check() -> None:
    """Prepare the slices and show them on a contact sheet.

    Runs the pipeline's preparation for params.yaml as it stands (`dvc repro draw_anomalies`), trains nothing, and
    writes reports/contact_sheet.png and reports/contact_sheet.html: slices of each part and class with the lesions'
    contours, counts, sizes, values, and what to look at before training.
    """
    from flipside.core.params import check_all, load_value
    from flipside.regression.lockfile import DVC

    check_all()
    refuse_missing_data()
    if subprocess.run([*DVC, "repro", "draw_anomalies"], check=False).returncode:
        raise RuntimeError("the preparation failed; its own message stands above")
    show(load_value("seed", int))


def refuse_missing_data() -> None:
    """Raises DatasetError with folder and page where the data set is missing; DVC would say the folder alone."""
    from flipside.cohort.simulated import SimulatedParams
    from flipside.core.params import load_section, load_value
    from flipside.scans.layouts import DatasetParams

    dataset, simulated = load_value("dataset", str), load_section("simulated", SimulatedParams)
    if dataset not in (*simulated.scans, *simulated.effects):
        load_section(f"datasets.{dataset}", DatasetParams).root.existing_root(dataset)


def show(seed: int) -> None:
    """Write the contact sheet of the slices in data/ and print what it says in words."""
    from flipside.cli.contact_sheet.page import row_title, write_contact_sheet
    from flipside.cli.contact_sheet.sheet import PAGE, PICTURE, read_contact_sheet

    sheet = read_contact_sheet(seed)
    write_contact_sheet(sheet, PICTURE, PAGE)
    print(f"\n{sheet.dataset}")
    for name, text in sheet.facts.items():
        print(f"  {name}: {text}")
    for row in sheet.rows:
        print(f"  {row_title(row)}")
    for warning in sheet.warnings:
        print(f"warning: {warning}")
    print(f"\ncontact sheet: {PAGE.resolve()} (in a browser), {PICTURE.resolve()}")
