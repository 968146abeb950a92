"""Train, validation and test parts: whole patients, near-identical images together, stratified by lesion volume."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd

VOLUME_BINS = 4  # quartiles of the lesion volume, beside a bin of their own for patients without a lesion


class SplitError(ValueError):
    """Patients that can't be split; the message has the counts."""


def split_scans(index: pd.DataFrame, scans: pd.DataFrame, groups: dict[str, int], val_fraction: float,
                test_fraction: float, use_given_split: bool, seed: int) -> tuple[dict[str, str], list[str]]:
    """{patient: split}, and the patients left out for a near-identical image in a given test or validation part.

    index: the slices, with patient_id and label; scans: one row per scan, with patient_id, lesion_volume_mm3 and
    given_split; groups: {patient: group} of near-identical images.
    """
    volumes = scans.groupby("patient_id")["lesion_volume_mm3"].sum().to_dict()
    table = patient_table(index, volumes, groups)
    if not use_given_split:
        return split_patients(table, val_fraction, test_fraction, seed), []
    given = scans.groupby("patient_id")["given_split"].agg(set).to_dict()
    return split_given(table, given, val_fraction, seed)


def patient_table(index: pd.DataFrame, volumes: dict[str, float], groups: dict[str, int]) -> pd.DataFrame:
    """One row per patient: group, slices, lesion volume, and whether there are healthy and abnormal slices.

    `index` has patient_id and label; `volumes` maps a patient to its lesion volume (mm³ or px), `groups` to its group.
    """
    labels = index.groupby("patient_id", sort=True)["label"]
    table = pd.DataFrame({"slices": labels.size(), "healthy": labels.min() == 0, "abnormal": labels.max() == 1})
    table["volume"] = [float(volumes.get(patient, 0.0)) for patient in table.index]
    table["group"] = [groups[patient] for patient in table.index]
    return table


def volume_bins(table: pd.DataFrame, folds: int) -> np.ndarray:
    """(P,) stratum of each patient: 0 without lesion, else 1 + quantile of the lesion volume.

    Quartiles, or fewer where a bin would have fewer patients than there are folds. A class label without a volume
    counts as the smallest lesion.
    """
    with_lesion = ((table["volume"] > 0) | table["abnormal"]).to_numpy()
    bins = np.zeros(len(table), int)
    count = int(np.clip(with_lesion.sum() // folds, 1, VOLUME_BINS))
    rank = table["volume"][with_lesion].rank(method="dense").to_numpy()  # equal volumes share a bin
    if len(rank):
        bins[with_lesion] = 1 + np.minimum((rank - 1) * count // rank.max(), count - 1).astype(int)
    return bins


def split_patients(table: pd.DataFrame, val_fraction: float, test_fraction: float, seed: int) -> dict[str, str]:
    """{patient: "train" | "val" | "test"}; no group of patients is divided, every part gets at least one patient.

    `table` comes from `patient_table`. Each part is one fold of a StratifiedGroupKFold: the one in which no class is
    missing where there is such, and whose share of the slices is nearest to the fraction. With test_fraction 1 every
    patient is test and val_fraction is unused.
    """
    if test_fraction == 1:
        return _named(test=table.index)
    _enough_groups(table, 3)
    is_test = _draw(table, test_fraction, groups_left=2, seed=seed)
    rest = table[~is_test]
    is_val = _draw(rest, val_fraction / (1 - test_fraction), groups_left=1, seed=seed)
    return _named(test=table.index[is_test], val=rest.index[is_val], train=rest.index[~is_val])


def split_given(table: pd.DataFrame, given: dict[str, set[str]], val_fraction: float, seed: int
                ) -> tuple[dict[str, str], list[str]]:
    """Keep the data set's own test and validation parts; without the latter take it from the training part.

    `given` maps each patient to the set of parts ("train", "val", "test") in which its scans stand. Returns
    {patient: split} and the patients left out because one of the test part, or of a given validation part, has a
    near-identical image.
    """
    for patient in table.index:
        if given[patient] not in ({"train"}, {"val"}, {"test"}):
            found = "nothing" if given[patient] == {""} else sorted(given[patient])
            raise SplitError(f"patient {patient}: the data set's own split says {found}, expected ['train'], ['val'] or"
                             " ['test']. Set filter.use_given_split to false to split by patient instead")
    is_test, is_val = (np.array([given[patient] == {part} for patient in table.index]) for part in ("test", "val"))
    is_train = ~is_test & ~is_val
    if not is_train.any() or not is_test.any():
        raise SplitError(f"the data set's own split has {is_train.sum()} training and {is_test.sum()} test patients "
                         "left; set filter.use_given_split to false")
    group = table["group"]
    leaked = ~is_test & group.isin(group[is_test]).to_numpy()
    if is_val.any():
        leaked |= is_train & group.isin(group[is_val]).to_numpy()
        split = _named(test=table.index[is_test], val=table.index[is_val & ~leaked],
                       train=table.index[is_train & ~leaked])
        if {"train", "val"} - set(split.values()):
            raise SplitError(f"{leaked.sum()} patients of the data set's own training and validation parts have an "
                             "image that is near-identical to one of a later part, and of one part none is left; lower "
                             "filter.duplicate_distance or set filter.use_given_split to false")
        return split, sorted(table.index[leaked])
    rest = table[is_train & ~leaked]
    _enough_groups(rest, 2)
    is_val = _draw(rest, val_fraction, groups_left=1, seed=seed)
    split = _named(test=table.index[is_test], val=rest.index[is_val], train=rest.index[~is_val])
    return split, sorted(table.index[leaked])


def unused_split(scans: pd.DataFrame, use_given_split: bool) -> list[str]:
    """A warning where the data set brings a split of its own (column given_split) that isn't used."""
    given = int((scans["given_split"] != "").sum())
    if use_given_split or not given:
        return []
    return [f"{given} of {len(scans)} scans have a split of the data set's own, which is not used: set "
            "filter.use_given_split to true to keep it"]


def count_by_split(index: pd.DataFrame) -> dict[str, dict[str, int]]:
    """{split: {patients, scans, slices, healthy, abnormal}} for the manifest."""
    return {
        split: {
            "patients": int(part["patient_id"].nunique()), "scans": int(part["scan_id"].nunique()), "slices": len(part),
            "healthy": int((part["label"] == 0).sum()), "abnormal": int((part["label"] == 1).sum()),
        }
        for split, part in ((split, index[index["split"] == split]) for split in ("train", "val", "test"))
    }


def check_classes(index: pd.DataFrame) -> list[str]:
    """Refuse a training part without healthy or without abnormal slices; returns a warning for each other part so.

    Where every slice is test, nothing is trained or chosen and only the test part is looked at.
    """
    counts = index.groupby(["split", "label"]).size().unstack(fill_value=0)
    counts = counts.reindex(index=["train", "val", "test"], columns=[0, 1], fill_value=0)
    told = "; ".join(f"{split} {row[0]} healthy, {row[1]} abnormal" for split, row in counts.iterrows())
    all_test = (index["split"] == "test").all()
    if not all_test and (counts.loc["train"] == 0).any():
        raise SplitError(f"the training part has slices of one class only ({told}). Check the data set's labels and "
                         "lesion_threshold_px, switch anomalies on where it has no lesions, or change the seed")
    return [
        f"the {split} part has no {name} slice ({told}): its metrics say little"
        for split in (("test",) if all_test else ("val", "test")) for label, name in ((0, "healthy"), (1, "abnormal"))
        if counts.loc[split, label] == 0
    ]


def check_leakage(index: pd.DataFrame, images: np.ndarray, tied: list[list[str]]) -> dict[str, int]:
    """Counts over a finished store, for its manifest; refuses a patient or tied patients in two splits.

    index: a slice store's, N rows; images: (N,H,W) or (N,C,H,W), what is written. `tied` lists the sets of patients
    that (near-)identical images tie together. `identical_images_in_two_splits` counts distinct images that stand in
    more than one split, equal in every pixel after window and resize; it is only told, as blank images are equal too.
    """
    group = {patient: f"group {number}" for number, patients in enumerate(tied) for patient in patients}
    patients = index["patient_id"]
    keys = {
        "patients": patients,
        "duplicate_groups": patients.map(group).fillna(patients),
        "identical_images": pd.Series([hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
                                       for image in images], dtype=str),
    }
    found = {f"{name}_in_two_splits": int((index.groupby(key.to_numpy())["split"].nunique() > 1).sum())
             for name, key in keys.items()}
    for name in ("patients_in_two_splits", "duplicate_groups_in_two_splits"):
        if found[name]:
            raise SplitError(f"{found[name]} {name.replace('_', ' ')}, expected none: a fault "
                             "of the splitting, nothing that is trained or measured on these data can be trusted")
    return found


def _draw(table: pd.DataFrame, fraction: float, groups_left: int, seed: int) -> np.ndarray:
    """(P,) bool: the patients of the fold that serves best as a part of the wanted size."""
    ranked = sorted(_folds(table, fraction, seed), key=lambda fold: _unfitness(table, fold, fraction))
    for fold in ranked:
        if fold.any() and table["group"][~fold].nunique() >= groups_left:
            return fold
    raise SplitError(f"{len(table)} patients in {table['group'].nunique()} groups can't be divided so that each part "
                     "gets one: lower filter.duplicate_distance or add patients")


def _folds(table: pd.DataFrame, fraction: float, seed: int) -> Iterator[np.ndarray]:
    from sklearn.model_selection import StratifiedGroupKFold  # slow to import

    wanted = min(max(round(1 / fraction), 2), table["group"].nunique())
    strata = volume_bins(table, wanted)
    # StratifiedGroupKFold refuses more folds than the fullest stratum has patients.
    folds = max(2, min(wanted, np.bincount(strata).max()))
    if np.bincount(strata).max() < 2:
        strata = np.zeros(len(table), int)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A stratum with fewer patients than folds is expected in small sets: the choice of the fold sees to it.
        warnings.filterwarnings("ignore", message="The least populated class")
        for _, chosen in splitter.split(strata, strata, table["group"]):
            fold = np.zeros(len(table), bool)
            fold[chosen] = True
            yield fold


def _unfitness(table: pd.DataFrame, fold: np.ndarray, fraction: float) -> tuple[int, float]:
    """(classes missing, worst outside the fold, where training is; distance from the wanted share of the slices)."""
    missing = sum(
        weight * int(table[name].any() and not table[name][side].any())
        for name in ("healthy", "abnormal") for side, weight in ((fold, 1), (~fold, 2))
    )
    return missing, abs(table["slices"][fold].sum() / table["slices"].sum() - fraction)


def _enough_groups(table: pd.DataFrame, needed: int) -> None:
    groups = table["group"].nunique()
    if groups < needed:
        raise SplitError(f"{len(table)} patients in {groups} groups of near-identical images are left "
                         f"({table['slices'].sum()} slices), at least {needed} groups are needed for a split by "
                         "patient. Add patients, lower filter.min_organ_px or filter.duplicate_distance")


def _named(**parts: pd.Index) -> dict[str, str]:
    return {patient: split for split, patients in parts.items() for patient in patients}
