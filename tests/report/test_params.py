"""The section `report` of params.yaml."""

from __future__ import annotations

import pytest

from flipside.report.params import ReportParams
from tests.report.report_fixture import REPORT


def test_report_params_refuse_an_unknown_policy():
    with pytest.raises(ValueError, match="policy"):
        ReportParams.model_validate(REPORT | {"policy": "best"})
