"""The report's section of params.yaml."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from flipside.core.params import Params
from flipside.masks.extraction.thresholds import POLICIES


class ReportParams(Params):
    """Section `report`: what is shown and how it is ordered. Nothing here changes a number."""

    title: str = Field(min_length=1)
    """Heading of the page."""
    policy: str = Field(pattern=f"^({'|'.join(POLICIES)})$")
    """Threshold policy of the masks that are shown, and of the IoU that says which case is best and which is worst."""
    rank_by: str
    """Metric that orders the methods."""
    rank_by_without_masks: str
    """Metric that orders the methods where the data set has no lesion masks, and so no IoU."""
    controls: list[str]
    """Methods that any serious method must beat: they are marked and never called the winner."""
    gallery_cases: PositiveInt
    """Lesion slices in the comparison of all methods, from the easiest to the hardest."""
    healthy_cases: PositiveInt
    """Healthy slices in the comparison of all methods, from the least to the most falsely marked."""
