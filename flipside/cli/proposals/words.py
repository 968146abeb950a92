"""What names of columns, folders and values usually mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

HEALTHY = {"0", "normal", "healthy", "negative", "neg", "control", "controls", "no", "none", "false", "notumor",
           "notumour", "nofinding", "nofindings", "nodisease", "nolesion", "clean", "background"}
PARTS = {"train": "train", "training": "train", "tr": "train", "val": "val", "valid": "val", "validation": "val",
         "dev": "val", "test": "test", "testing": "test", "ts": "test"}
MASKS = re.compile(r"seg|mask|label|lesion|tumou?r|annot|contour|^gt$|_gt$|ground.?truth", re.IGNORECASE)
ENOUGH_PATIENTS = 5
LARGEST_SHARE = 0.4  # of the scans that one patient may have where patients are read from names
PATIENT_IN_NAME = (r"^([^_]+)_", r"^([^_-]+)[_-]", r"^(.+)[_-][^_-]+$")  # from coarse to fine


def is_healthy(value: str, told: Sequence[str]) -> bool:
    """Whether a class is a healthy one: as the user told, else by its name."""
    if told:
        return value in told
    plain = re.sub(r"[\W_]+", "", value.lower())
    return plain in HEALTHY or bool(re.match(r"(no|non|without)[\W_]", value.lower()))


def classes_of(values: Iterable[str], told: Sequence[str]) -> dict[str, int] | None:
    """{class: 0 or 1}; None where no class, or every one, seems to be healthy."""
    classes = {value: int(not is_healthy(value, told)) for value in sorted(values)}
    return classes if set(classes.values()) == {0, 1} else None


def patient_pattern(names: Sequence[str]) -> tuple[str, int] | None:
    """A regular expression for the patient in the scans' names, and how many patients it finds; None where no
    pattern makes sense: too few patients, one of them with most scans, or each scan a patient of its own."""
    for pattern in PATIENT_IN_NAME:
        found = [match.group(1) for name in names if (match := re.search(pattern, name))]
        counts = [found.count(one) for one in set(found)] if len(found) == len(names) else []
        if len(counts) >= ENOUGH_PATIENTS and max(counts) <= LARGEST_SHARE * len(names) and len(counts) < len(names):
            return pattern, len(counts)
    return None
