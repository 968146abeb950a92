"""Copies of one image under several names: byte-identical ones are dropped, near-identical ones kept on one side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from flipside.core.progress import progress

# 16 x 16 DCT signs. The usual 8 x 8 hash can't tell one brain or abdomen from another: at distance 10 of 64 a quarter
# of a brain MRI set is one group. With 256 bits, copies lie below 30 and different patients' CT slices above 50.
HASH_SIZE = 16
RANK = {"test": 0, "val": 1}  # of copies of an image in given parts: which one stays
WIDEST = 20  # bits of a band: what has a table of 2^20 entries
CANDIDATES = 1 << 18  # pairs of hashes that are compared at once


@dataclass(frozen=True)
class IdenticalImages:
    """What to drop among byte-identical images, as positions in the index."""

    extra: np.ndarray  # further copies of an image that stays
    conflicting: np.ndarray  # every copy of an image that carries different labels
    groups: list[np.ndarray]  # positions of each set of copies, the one that stays first (conflicts: none stays)

    def links(self) -> np.ndarray:
        """(P,2) positions: each copy with the first of its set. Their patients belong together, dropped or not."""
        pairs = [(group[0], other) for group in self.groups for other in group[1:]]
        return np.array(pairs, np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Copies:
    """Which of some slices stay where the same image is there several times."""

    stay: np.ndarray  # positions of the slices that stay
    groups: dict[str, int]  # {patient: group} of those that stay; see `patient_groups`
    report: dict  # for the manifest
    dropped: list[dict[str, str]]  # slice_id, source_file and reason of the others


def drop_copies(images: np.ndarray, index: pd.DataFrame, rows: np.ndarray, labels: np.ndarray, given: np.ndarray,
                distance: int) -> Copies:
    """Drop byte-identical copies among the slices `images[rows]`, and group the patients by near-identical images.

    images: (N,H,W) or (N,C,H,W) in any units; index: len(rows) rows with slice_id, patient_id, source_file and sha256;
    labels and given (the data set's own split, "" for none): (len(rows),); distance: in bits, see
    `near_identical_pairs`.
    """
    patients = index["patient_id"].to_numpy()
    identical = find_identical(index["sha256"].to_numpy(), labels, given)
    reasons = {int(i): "byte-identical copy of another slice" for i in identical.extra}
    reasons |= {int(i): "byte-identical to a slice with another label" for i in identical.conflicting}
    stay = np.setdiff1d(np.arange(len(rows)), list(reasons))
    hashes, informative = perceptual_hashes(images, rows[stay])
    hashed = stay[informative]
    near = hashed[near_identical_pairs(hashes[informative], patients[hashed], distance)]  # (P,2) into rows
    copies = np.array([pair for pair in identical.links() if not is_blank(images[rows[pair[0]]])], int).reshape(-1, 2)
    groups = patient_groups(patients, np.concatenate([near, copies]))
    groups = {patient: groups[patient] for patient in np.unique(patients[stay])}
    report = {"identical": duplicate_report(index, identical, given),
              "near_identical": group_report(groups, len(near), distance)}
    dropped = [{"slice_id": index["slice_id"].iloc[i], "source_file": index["source_file"].iloc[i], "reason": reason}
               for i, reason in sorted(reasons.items())]
    return Copies(stay, groups, report, dropped)


def is_blank(image: np.ndarray) -> bool:
    """Whether an image (H,W) or (C,H,W) has one value only in each channel, as slices beyond a brain have: such slices
    are alike without being of one patient."""
    return bool((np.ptp(image, axis=(-2, -1)) == 0).all())


def find_identical(sha256: np.ndarray, labels: np.ndarray, given_split: np.ndarray) -> IdenticalImages:
    """Group images by the digest of their bytes; all arguments (N,).

    One copy stays, a test image before one for validation or training (so a data set's own test part stays whole), a
    validation image before a training one, else the first.
    Copies with different labels are all dropped: nothing says which label is right.
    """
    ranks = [RANK.get(part, len(RANK)) for part in given_split]
    table = pd.DataFrame({"sha256": sha256, "label": labels, "rank": ranks})
    table = table[table.duplicated("sha256", keep=False)]
    extra, conflicting, groups = [], [], []
    for _, copies in table.groupby("sha256", sort=False):
        positions = copies.sort_values("rank", kind="stable").index.to_numpy()
        groups.append(positions)
        if copies["label"].nunique() > 1:
            conflicting.extend(positions)
        else:
            extra.extend(positions[1:])
    return IdenticalImages(np.array(sorted(extra), int), np.array(sorted(conflicting), int), groups)


def perceptual_hashes(images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Perceptual hashes of `images[rows]`, (M, 4) uint64, and (M,) bool: not blank.

    Each image (H,W), any units, of several channels (C,H,W) the middle one, is stretched to 8 bits between its 0.5 and
    99.5 percentiles, so that a copy with another brightness or contrast has the same hash. A blank image's hash means
    nothing.
    """
    hashes = np.zeros((len(rows), HASH_SIZE**2 // 64), np.uint64)
    informative = np.zeros(len(rows), bool)
    for position, row in enumerate(progress(rows, "perceptual hashes", total=len(rows))):
        channels = images[row].reshape(-1, *images.shape[-2:])  # (C,H,W)
        image = np.asarray(channels[len(channels) // 2], np.float32)  # (H,W)
        low, high = np.percentile(image, (0.5, 99.5))
        if not high > low:
            continue
        grey = np.clip((image - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
        bits = imagehash.phash(Image.fromarray(grey), hash_size=HASH_SIZE).hash
        hashes[position] = np.packbits(bits).view(np.uint64)
        informative[position] = True
    return hashes, informative


def near_identical_pairs(hashes: np.ndarray, patients: np.ndarray, distance: int) -> np.ndarray:
    """(P,2) positions i < j, sorted, of different patients whose hashes (N, words) uint64 differ in at most `distance`
    bits.

    Not every pair is compared: by the pigeonhole principle, two hashes that differ in so few bits differ in at most one
    bit of some of distance // 2 + 1 bands (multi-index hashing, Norouzi et al. 2012, arXiv:1307.2982). Only pairs of
    which that holds are, so that 40,000 slices take a second; more where all images are much alike.
    """
    codes = pd.factorize(patients)[0]
    found = [np.empty((0, 2), np.int64)]
    for keys, width in bands(hashes, distance // 2 + 1):
        for i, j in neighbouring_keys(keys, width):
            keep = codes[i] != codes[j]
            i, j = np.minimum(i, j)[keep], np.maximum(i, j)[keep]
            near = np.bitwise_count(hashes[i] ^ hashes[j]).sum(axis=1, dtype=int) <= distance
            found.append(np.stack([i[near], j[near]], axis=1))
    return np.unique(np.concatenate(found), axis=0)  # a pair may be near in several bands


def bands(hashes: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, int]]:
    """The bits of hashes (N, words) uint64 dealt out to at least `count` bands, none wider than WIDEST bits.

    Of each its value in every hash, (N,) int64, and its width in bits. Neighbouring bits, which are alike, come into
    different bands.
    """
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)  # (N, 64 words)
    count = max(count, -(-bits.shape[1] // WIDEST))
    for band in range(min(count, bits.shape[1])):
        own = bits[:, band::count].astype(np.int64)  # (N, width)
        yield own @ (1 << np.arange(own.shape[1])), own.shape[1]


def neighbouring_keys(keys: np.ndarray, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of positions (M,), (M,) whose keys (N,) int64 in [0, 2^width) differ in one bit or none; each pair once,
    about CANDIDATES of them at a time."""
    order = np.argsort(keys, kind="stable")
    counts = np.bincount(keys, minlength=1 << width)
    starts = np.cumsum(counts) - counts
    rank = np.empty_like(order)  # of each position among those of its key
    rank[order] = np.arange(len(keys)) - starts[keys[order]]
    for bit in (0, *(1 << np.arange(width))):
        # Those of the same key come after it in the order; of two keys that differ the lower one looks for the higher.
        first = starts[keys | bit] + (rank + 1 if bit == 0 else 0)
        last = np.where(keys & bit, first, starts[keys | bit] + counts[keys | bit])
        rows = np.flatnonzero(last > first)
        ends = np.cumsum(last[rows] - first[rows])
        for part in np.split(rows, np.flatnonzero(np.diff(ends // CANDIDATES)) + 1):
            many = last[part] - first[part]
            offsets = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
            yield np.repeat(part, many), order[np.repeat(first[part], many) + offsets]


def patient_groups(patients: np.ndarray, pairs: np.ndarray) -> dict[str, int]:
    """{patient: group}: patients that share a (near-)identical image, directly or through others, share a group.

    `patients` (N,) names each image's patient, `pairs` (P,2) are positions in it.
    """
    codes, names = pd.factorize(patients)
    links = coo_matrix((np.ones(len(pairs)), (codes[pairs[:, 0]], codes[pairs[:, 1]])), (len(names), len(names)))
    return dict(zip(names, connected_components(links, directed=False)[1].tolist(), strict=True))


def duplicate_report(index: pd.DataFrame, identical: IdenticalImages, given_split: np.ndarray) -> dict:
    """Counts and members of the byte-identical images, for the manifest. `given_split` (N,): "" for none."""
    names = index["slice_id"].to_numpy()
    return {
        "groups": len(identical.groups),
        "groups_across_given_splits": sum(len(set(given_split[group])) > 1 for group in identical.groups),
        "dropped": len(identical.extra),
        "dropped_for_conflicting_labels": len(identical.conflicting),
        "members": [names[group].tolist() for group in identical.groups],
    }


def group_report(groups: dict[str, int], pairs: int, distance: int) -> dict:
    """Counts and members of the patients that (near-)identical images tie together, for the manifest.

    `groups` maps each patient that still has slices to its group, `pairs` is the number of near-identical pairs.
    """
    members: dict[int, list[str]] = {}
    for patient, group in sorted(groups.items()):
        members.setdefault(group, []).append(patient)
    tied = [patients for patients in members.values() if len(patients) > 1]
    return {
        "distance": distance,
        "hash_bits": HASH_SIZE**2,
        "pairs": pairs,
        "groups": len(tied),
        "patients": sum(map(len, tied)),
        "largest_group": max(map(len, tied), default=0),
        "members": tied,
    }
