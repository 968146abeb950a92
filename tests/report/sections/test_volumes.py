"""The table of whole scans, and the mark of a method whose maps were made elsewhere."""

import json
import re

from stages import report
from tests.report.report_fixture import edit_json

FOUND = {"n_volumes": 5, "n_volumes_with_lesion": 3, "n_volumes_with_gaps": 2, "n_lesions_3d": 7,
         "lesion_dice_3d": 0.625, "lesion_dice_3d_ci_low": 0.5, "lesion_dice_3d_ci_high": 0.75,
         "lesion_sensitivity_3d": 0.875, "false_lesions_per_scan": 1.5, "volume_error_ml": 2.25}


def test_whole_scans_have_a_table_and_maps_from_files_a_mark_and_no_time(project):
    report.main()
    assert 'id="volumes"' not in (project / "reports/report.html").read_text()  # a data set without volumes
    edit_json(project / "reports/metrics.json", lambda metrics: (
        metrics["coin"].update(FOUND), metrics["rise"].update(from_files=1), metrics["rise"].pop("seconds_per_image")))
    (project / "data/explanations/rise/timing.json").write_text(json.dumps(
        dict.fromkeys(("seconds", "seconds_per_image", "device", "peak_memory_gb")) | {"images": 12}))
    (project / "data/explanations/rise/parameters.json").write_text(json.dumps({"needs": "data/foreign/rise"}))
    report.main()
    page = (project / "reports/report.html").read_text()
    section = page[page.index('<section id="volumes">'):]
    section = section[:section.index("</section>")]
    assert "5 scans with several test slices, 3 with a lesion, 7 lesions" in section
    assert "2 scans have such gaps" in section
    row = re.search(r'<th scope="row">coin</th>(.*?)</tr>', section)[1]
    assert re.findall(r"<td.*?>(.*?)</td>", row) == [
        '0.625 <span class="quiet">0.500–0.750</span>', "0.875", "1.500", "2.250"]
    ranked = page[page.index('<section id="ranking">'):page.index('<section id="volumes">')]
    assert re.search(r'>rise</a><span class="badge">files</span>', ranked)
    assert "rise: maps or masks that were made elsewhere" in ranked
    times = page[page.index('<section id="times">'):]
    assert "rise" not in times[:times.index("</section>")]
    assert "rise *(files)*" in (project / "reports/metrics.md").read_text()
