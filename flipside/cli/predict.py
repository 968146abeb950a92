"""Masks, attributions and counterfactuals of new scans by the models of a finished run or a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def predict(
    scans: Annotated[list[Path] | None, typer.Argument(
        help="NIfTI files, pictures, DICOM files, folders with any of these, tables.", show_default=False)] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("predictions"),
    run: Annotated[Path, typer.Option("--run", "--bundle", help="Folder of the finished run, or of a bundle that "
                                      "`flipside export` made.")] = Path("."),
    method: Annotated[str | None, typer.Option(
        help="A method of the run; by default its best one that needs no inversion of each slice.",
        show_default=False)] = None,
    table: Annotated[list[Path] | None, typer.Option(
        help="A CSV or Parquet file with a row for each scan: the column path, and organ, spacing and further volumes "
             "where there are any. Paths are relative to it.", show_default=False)] = None,
    dicom: Annotated[bool, typer.Option("--dicom", help="Of DICOM scans, write DICOM-SEG and a parametric map, too; "
                                        "the patient in them is the source's.")] = False,
    anonymise: Annotated[bool, typer.Option("--anonymise", help="Leave the patient in these empty.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in a folder: what is done there isn't done "
                                         "again.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make the predictions in the folder anew.")] = False,
) -> None:
    """Explain new scans with trained models.

    For each scan a folder with mask, attribution and, where the method makes one, counterfactual on the scan's own grid
    (NIfTI, of pictures PNG); for all of them predictions.csv and index.html, a page to look through. Nothing is trained
    or chosen, and labels or lesion masks of the scans are not looked at. A scan that can't be read is listed with its
    reason, the others go on, and the exit status is 1.
    """
    from flipside.core.params import ParamsError
    from flipside.prediction import predict as prediction
    from flipside.prediction.finding import find_new_scans
    from flipside.prediction.outputs import DONE
    from flipside.prediction.sheet import PAGE, write_sheet
    from flipside.prediction.trained import Explainer, TrainedRun, choose_method

    # What was trained, and what is to be explained.
    if not scans and not table:
        raise ParamsError("no scan: name files, folders or a --table")
    trained = TrainedRun.open(run)
    name = choose_method(trained, method)
    found = find_new_scans(scans or [], table or [], trained, out)
    cut = trained.threshold(name)
    settings = trained.settings(name) | {"dicom": dicom, "anonymise": anonymise}
    prediction.open_output(out, settings, resume, overwrite)
    writer = None
    if dicom:
        from flipside.prediction.dicom_objects import dicom_writer

        writer = dicom_writer(trained, name, anonymise)
    explainer = Explainer(trained, name)
    print(f"{len(found)} scans; {name} of the run on {trained.dataset}, threshold policy "
          f"{trained.segmentation.policy}; {explainer.runtime.describe()}", flush=True)

    # The scans, one after the other, then all of them in a table and on a page.
    rows = prediction.predict(found, trained, explainer, cut, out, writer)
    failed = rows[rows["status"] != DONE]
    write_sheet(out, failed.to_dict("records"), trained, name)
    done = rows[rows["status"] == DONE]
    print(f"{len(done)} scans, {(done['called'] == 'abnormal').sum()} called abnormal, "
          f"{(done['warnings'].fillna('') != '').sum()} with warnings; {len(failed)} failed\n"
          f"{explainer.runtime.describe_peak_memory()}\ntable: {out / prediction.TABLE}\npage: {out / PAGE}")
    for row in failed.itertuples():
        print(f"failed: {row.file}: {row.status}")
    if len(failed):
        raise typer.Exit(1)
