"""Masks, attributions and counterfactuals of new scans by the models of a finished run or a bundle."""

from __future__ import annotations

import argparse
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
    part: Annotated[str | None, typer.Option(
        metavar="I/N", help="Do the I-th of N shares of the scans and nothing else, as one task of an array job; run "
        "without it, with --resume, afterwards.", show_default=False)] = None,
    cluster: Annotated[str, typer.Option(
        help="Have Dask workers do the scans: local, slurm, kubernetes or tcp://HOST:PORT, as `runtime.cluster` in "
        "params.yaml.")] = "none",
) -> None:
    """Explain new scans with trained models.

    For each scan a folder with mask, attribution and, where the method makes one, counterfactual on the scan's own grid
    (NIfTI, of pictures PNG); for all of them predictions.csv and index.html, a page to look through. Nothing is trained
    or chosen, and labels or lesion masks of the scans are not looked at. A scan that can't be read is listed with its
    reason, the others go on, and the exit status is 1.
    """
    from flipside.core.parallel import parse_share
    from flipside.core.params import ParamsError
    from flipside.prediction import predict as prediction
    from flipside.prediction.finding import find_new_scans
    from flipside.prediction.outputs import DONE, remove_leftovers
    from flipside.prediction.parts import Predictor, Request, predict_on_cluster, runtime_of
    from flipside.prediction.sheet import PAGE, write_sheet
    from flipside.prediction.trained import TrainedRun, choose_method

    # What was trained, and what is to be explained.
    if not scans and not table:
        raise ParamsError("no scan: name files, folders or a --table")
    if part is not None and overwrite:
        raise ParamsError("--overwrite would remove what the other parts did: leave it out, and name a new folder")
    if part is not None and cluster != "none":
        raise ParamsError("--part and --cluster both share the scans out: choose one of them")
    try:
        share = None if part is None else parse_share(part)
    except argparse.ArgumentTypeError as error:
        raise ParamsError(f"--part is {error}") from None
    trained = TrainedRun.open(run)
    name = choose_method(trained, method)
    found = find_new_scans(scans or [], table or [], trained, out)
    mine = found if share is None else found[share[0] - 1 :: share[1]]
    request = Request(run, name, out, dicom, anonymise, runtime_of(run, cluster))
    predictor = Predictor(request)
    settings = trained.settings(name) | {"dicom": dicom, "anonymise": anonymise}
    prediction.open_output(out, settings, resume or share is not None, overwrite)
    print(f"{len(mine)} scans; {name} of the run on {trained.dataset}, threshold policy "
          f"{trained.segmentation.policy}; {predictor.explainer.runtime.describe()}", flush=True)

    # The scans, then all of them in a table and on a page.
    if cluster != "none":
        predict_on_cluster(found, request, trained.batch_size)
    failed = predictor(mine)
    if share is None:
        remove_leftovers(out)
        rows = prediction.write_table(out, failed)
        write_sheet(out, failed, trained, name)
        done = rows[rows["status"] == DONE]
        print(f"{len(done)} scans, {(done['called'] == 'abnormal').sum()} called abnormal, "
              f"{(done['warnings'].fillna('') != '').sum()} with warnings; {len(failed)} failed\n"
              f"{predictor.explainer.runtime.describe_peak_memory()}\n"
              f"table: {out / prediction.TABLE}\npage: {out / PAGE}")
    else:
        print(f"part {part} is done: {len(mine)} of {len(found)} scans, {len(failed)} failed. When all are, run it "
              "with --resume and without --part")
    for row in failed:
        print(f"failed: {row['file']}: {row['status']}")
    if failed and share is None:
        raise typer.Exit(1)
