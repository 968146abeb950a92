"""Artifacts that do not fit together, or are missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flipside.core.packed_masks import PackedMasks, write_packed
from flipside.report.inputs import read_inputs
from flipside.report.params import ReportParams
from flipside.report.sections.methods import describe_channels
from stages import report
from tests.report.report_fixture import REPORT


def test_tables_of_another_form_are_refused(project):
    pd.read_csv("reports/subgroups.csv").drop(columns="pixel_ap").to_csv("reports/subgroups.csv", index=False)
    with pytest.raises(ValueError, match="reports/subgroups.csv has no column pixel_ap.*dvc repro evaluate"):
        report.main()
    Path("reports/populations.csv").unlink()
    Path("reports/subgroups.csv").unlink()
    with pytest.raises(FileNotFoundError, match="subgroups.csv not found: it comes from evaluate"):
        report.main()


def test_artifacts_of_different_runs_are_refused(project):
    masks = PackedMasks.open("data/masks/rise/label_free.npy", 24)
    write_packed("data/masks/rise/label_free.npy", masks[:-1])
    with pytest.raises(ValueError, match=r"rise/label_free.npy holds masks \(11, .*\(12, .*extract_masks@rise"):
        report.main()
    Path("data/masks/rise/label_free.npy").unlink()
    with pytest.raises(FileNotFoundError, match="rise/label_free.npy not found.*extract_masks@rise"):
        report.main()


@pytest.mark.parametrize(("names", "shown"), [
    (["red", "green", "blue"], "them in colour"), (["blue", "green", "red"], "blue alone"),
    (["t1-1", "t1", "t1+1"], "t1 alone"),
    (["t2+1", "t2-1", "t2+2"], "t2+1 alone"), (None, "1 alone")])
def test_of_several_channels_pictures_show_colours_or_the_first_of_the_slice_itself(project, names, shown):
    inputs = read_inputs(ReportParams(**REPORT))
    images = np.stack([inputs.store.images * (1 - 0.1 * number) for number in range(3)], axis=1)
    manifests = inputs.manifests | {"data/slices": {} if names is None else {"channels": names}}
    inputs = replace(inputs, store=replace(inputs.store, images=images), manifests=manifests)
    picture = inputs.shown_channels(images[0])
    if shown == "them in colour":
        assert np.array_equal(picture, images[0])
    else:
        assert np.array_equal(picture, images[0, inputs.channel_names.index(shown.removesuffix(" alone"))])
    listed = ", ".join(names or ["1", "2", "3"])
    assert f"Slices have 3 channels ({listed}); pictures show {shown}" in describe_channels(inputs)


def test_of_a_single_channel_nothing_is_said(project):
    inputs = read_inputs(ReportParams(**REPORT))
    assert describe_channels(inputs) == "" and inputs.shown_channels(inputs.store.images) is inputs.store.images
