"""Two runs with one seed on a CPU, in other processes and another folder, give the same numbers to the last digit."""

import json

import yaml

from tests.faults.project import content, copied, done
from tests.test_dvc_yaml import STAGES, base

METHODS = ("coin", "impact", "rise", "centre")  # impact: the check of its inpainter needs it
OF_ALL_METHODS = ("wilcoxon_p_holm", "wilcoxon_patients_p_holm")  # corrected for how many methods there are
SECONDS = ("seconds_per_image", "seconds_training")


def test_the_same_seed_gives_the_same_metrics(finished, prepared, tmp_path):
    project = copied(prepared, tmp_path / "project", "data/raw")
    params = yaml.safe_load((project / "params.yaml").read_text())
    others = set(params["methods"]) - set(METHODS)
    params["methods"] = {name: params["methods"][name] for name in METHODS}
    params["evaluate"]["upper_bound"] = None
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    left_out = ("simulate_scans", "simulate_effects", "segment_scans", "report", "train_segmenter")  # of flip_mask
    ran = [name for name in STAGES if base(name) not in left_out and name.partition("@")[2] not in others]
    for name in ran:
        done(project, name)
    for name in ran:
        found, expected = content(project, name), content(finished, name)
        if name in ("judge_counterfactuals", "measure_realism"):  # a file per method, the other methods' too
            assert found and found.items() <= expected.items(), name
        elif name not in ("evaluate", "published_tables"):  # tables of all methods
            assert found == expected, name
    metrics = [json.loads((root / "reports/metrics.json").read_text()) for root in (project, finished)]
    for method in METHODS:
        first, second = ({name: value for name, value in found[method].items()
                          if name not in (*SECONDS, *OF_ALL_METHODS)} for found in metrics)
        assert first == second and first["n_cases"] > 0
