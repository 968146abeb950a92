"""The first screen: what goes wrong, and the worst cases."""

from __future__ import annotations

import re

import pandas as pd

from flipside.core.packed_masks import PackedMasks, write_packed
from flipside.report.inputs import Result
from flipside.report.sections.headline import worst_cases
from stages import report


def test_the_first_screen_counts_what_goes_wrong(project):
    cases = pd.read_csv("reports/cases.csv")
    own = (cases["method"] == "coin") & (cases["label"] == 1)
    missed = cases.index[own][:2]
    cases.loc[missed, "iou_label_free"] = 0.0
    cases.loc[missed[0], "f_x"] = 0.4  # the classifier sees nothing there either
    cases.to_csv("reports/cases.csv", index=False)
    masks = PackedMasks.open("data/masks/coin/label_free.npy", 24)[:]
    masks[1::2] = 0
    masks[3, 0, 0] = 1  # one healthy slice is marked
    write_packed("data/masks/coin/label_free.npy", masks)
    report.main()
    page = (project / "reports/report.html").read_text()
    assert "in 2 of 6 lesion slices; the classifier itself calls 1 of these healthy." in page
    assert "Marks something on 1 of 6 healthy slices." in page
    assert re.search(r"Worst on small lesions \(\d+ to \d+ mm²\): IoU 0\.\d+, n = 3; best on large lesions", page)
    assert "still called abnormal: 1 of 5 by the classifier, 1 of 4 by the judge." in page
    assert "Between the 3 patients the mean IoU ranges" in page and "rest on only 3, and" in page


def test_the_worst_cases_are_misses_of_large_lesions_and_of_different_patients():
    cases = pd.DataFrame({"slice_id": list("abcde"), "patient_id": ["p", "p", "q", "r", "s"], "label": 1,
                          "lesion_px": [9, 20, 5, 50, 1], "iou_label_free": [0.0, 0.0, 0.0, 0.3, 0.9]})
    result = Result("m", {}, False, None, None, {}, {}, cases, {}, {})
    assert worst_cases(result, "iou_label_free") == [("b", 0.0), ("c", 0.0), ("d", 0.3)]
