import pandas as pd
import pytest

from flipside.metrics.evaluation import EvaluationError
from flipside.metrics.families.counts import count_lesion_cases

CASES = pd.DataFrame({"patient_id": ["p", "p", "q", "q", "q"], "label": [1, 1, 1, 0, 1], "lesion_px": [4, 9, 5, 3, 0]})


def test_vanished_lesions_are_counted_apart_and_healthy_slices_by_their_label():
    assert count_lesion_cases(CASES) == {"n_cases": 3, "n_healthy": 1, "n_patients": 2, "n_lesion_vanished": 1}
    assert count_lesion_cases(CASES[CASES["label"] == 1])["n_healthy"] == 0


def test_a_test_split_without_lesions_is_refused():
    with pytest.raises(EvaluationError, match="slice with a lesion"):
        count_lesion_cases(CASES[CASES["label"] == 0])
