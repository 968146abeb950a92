"""Curves as they are drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flipside.report import charts


def test_long_curves_are_thinned_to_means():
    table = pd.DataFrame({"step": np.arange(3000.0), "loss": np.tile([0.0, 1.0], 1500)})
    thinned = charts.thin(table)
    assert len(thinned) == 300 and np.allclose(thinned["loss"], 0.5)
