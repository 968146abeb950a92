"""What the report says of the inpainter, and of a classifier that was shown lesion masks."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from flipside.report import tables
from stages import report


def test_the_inpainters_check_is_shown_where_there_is_one(project):
    report.main()
    assert 'id="inpainter"' not in Path("reports/report.html").read_text()
    curves = pd.DataFrame([(arm, draw, x, x) for arm in ("original", "healthy", "lesion") for draw in range(2)
                           for x in (0.0, 0.5, 1.0)], columns=["arm", "draw", "fpr", "tpr"])
    (project / "reports/inpainter").mkdir()
    curves.to_csv("reports/inpainter/roc.csv", index=False)
    Path("reports/inpainter.json").write_text(json.dumps({
        "auc_original": 0.91, "auc_healthy": 0.9, "auc_lesion": 0.5, "logit_shift_healthy": -0.25,
        "logit_shift_lesion": -4.5, "n_abnormal": 5, "n_healthy": 6, "n_left_out": 1}))
    report.main()
    page = Path("reports/report.html").read_text()
    section = page[page.index('<section id="inpainter">'):page.index('<section id="times">')]
    assert "lesion inpainted, AUC 0.500" in section and "-0.25" in section and "-4.50" in section
    assert section.count('class="chart"') == 3 and "1 left out" in section


def test_a_run_whose_classifier_saw_lesion_masks_says_so_wherever_methods_are_ranked(project):
    report.main()
    page = Path("reports/report.html").read_text()
    assert "none is trained with lesion masks" in page and tables.STRONG not in page
    metrics = {method: values | {"strongly_supervised": 1}
               for method, values in json.loads(Path("reports/metrics.json").read_text()).items()}
    Path("reports/metrics.json").write_text(json.dumps(metrics))
    report.main()
    page = Path("reports/report.html").read_text()
    assert "none is trained with lesion masks" not in page and page.count(tables.STRONG) >= 2  # header and ranking
    assert tables.STRONG in Path("reports/metrics.md").read_text()
    assert tables.STRONG in tables.plain_table(metrics, "iou_label_free", [])
