"""Blocks for pictures: one folder per class, or images and masks in folders of their own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np

from flipside.cli.proposals.proposal import Proposal
from flipside.cli.proposals.survey import Survey, bare
from flipside.cli.proposals.words import MASKS, PARTS, classes_of, patient_pattern
from flipside.scans.patterns import masks_among
from flipside.scans.picture_files import decode_picture
from flipside.scans.readers import ReadError

MOST_CLASSES = 20
LOOKED_AT = 20  # masks whose values are looked at
MANY = 8  # values that are named
NOT_BLACK = [[[1, 255], [0, 255], [0, 255]], [[0, 255], [1, 255], [0, 255]], [[0, 255], [0, 255], [1, 255]]]


def propose_classes(survey: Survey, healthy: list[str]) -> Proposal | str:
    """Layout class_folders, or why not."""
    depths = Counter(len(path.parts) for path in survey.pictures)
    if not depths:
        return "no pictures"
    depth = depths.most_common(1)[0][0]
    pictures = [path for path in survey.pictures if len(path.parts) == depth]
    levels = [{path.parts[level] for path in pictures} for level in range(depth - 1)]
    level = next((i for i, names in enumerate(levels)
                  if len(names) <= MOST_CLASSES and classes_of(names, healthy)), None)
    if level is None:
        told = [f"{len(names)} ({', '.join(sorted(names)[:4])}{', …' if len(names) > 4 else ''})" for names in levels]
        return (f"pictures lie in the folders {'; below them '.join(told)}, and no name says what is healthy; say it "
                "with --healthy NAME" if told else "pictures lie in the folder itself, without a label")
    masks = [path for path, _ in masks_among([survey.folder / path for path in pictures])]
    classes = classes_of(levels[level], healthy)
    block: dict = {"layout": "class_folders", "classes": classes}
    parts, split = [], None
    for i, names in enumerate(levels):
        if i == level:
            parts.append("{class}")
        elif split is None and len(names) > 1 and all(name.lower() in PARTS for name in names):
            parts.append("{split}")
            split = {name: PARTS[name.lower()] for name in sorted(names)}
        else:
            parts.append(next(iter(names)) if len(names) == 1 else "*")
    endings = {path.suffix.lower() for path in pictures}  # one: it leaves out what else lies there (Thumbs.db)
    block["image"] = "/".join([*parts, "{case}" + (endings.pop() if len(endings) == 1 else ".*")])
    if split:
        block["splits"] = split
    proposal = Proposal(block, has_split=split is not None)
    if masks:
        block["leave_out"] = sorted({"/".join([*parts, f"{{case}}{_mask_ending(path)}*.*"]) for path in masks})
        proposal.guesses["leave_out"] = (f"{len(masks)} files seem to be masks beside the pictures, such as "
                                         f"{masks[0].relative_to(survey.folder)}; a table with a column mask uses them")
        pictures = [path for path in pictures if survey.folder / path not in set(masks)]
    if not healthy:
        proposal.guesses["classes"] = "by the folders' names; --healthy says it otherwise"
    elsewhere = [path for path in survey.pictures if len(path.parts) != depth]
    if elsewhere:
        proposal.notes.append(f"{len(elsewhere)} pictures that lie elsewhere are left out, such as {elsewhere[0]}")
    _patient(proposal, [bare(path.name) for path in pictures])
    return proposal


def _mask_ending(path: Path) -> str:
    """What tells a mask from its picture in its name: `_mask` of `7_mask_1.png`."""
    words = MASKS.search(path.stem)
    start = words.start() if words else len(path.stem)
    return path.stem[max(start - 1, 0):words.end() if words else None]


def propose_masks(survey: Survey) -> Proposal | str:
    """Layout image_mask, or why not."""
    folders: dict[PurePosixPath, dict[str, PurePosixPath]] = {}
    for path in survey.pictures:
        folders.setdefault(path.parent, {})[bare(path.name)] = path
    masks = [folder for folder in folders if MASKS.search(folder.name)]
    for mask_folder in masks:
        for folder in folders:
            if folder in masks:
                continue
            affix = _affix(list(folders[folder]), list(folders[mask_folder]))
            if affix is None:
                continue
            images, files = list(folders[folder].values()), list(folders[mask_folder].values())
            in_colours, told = _values(survey, files)
            lesion = {"files": [_pattern(files, affix)]} | ({"colours": NOT_BLACK} if in_colours else {})
            proposal = Proposal({"layout": "image_mask", "image": _pattern(images, ""), "lesion": lesion,
                                 "ignored": "any"}, {"lesion": told})
            lone = set(folders[folder]) - {name.removesuffix(affix) for name in folders[mask_folder]}
            if lone:
                return (f"{len(lone)} of {len(folders[folder])} pictures of {folder} have no mask in {mask_folder}, "
                        f"such as {sorted(lone)[0]}: make a table with the columns path, label and mask")
            _patient(proposal, list(folders[folder]))
            return proposal
    return "no folder with masks of another folder's pictures"


def _affix(images: list[str], masks: list[str]) -> str | None:
    """What the masks' names have behind the images' names; None where they don't belong together."""
    if set(images) & set(masks):
        return ""
    first = images[0]
    for mask in masks:
        if mask.startswith(first) and (affix := mask[len(first):]):
            if sum(f"{name}{affix}" in masks for name in images) > len(images) / 2:
                return affix
    return None


def _pattern(paths: list[PurePosixPath], affix: str) -> str:
    endings = {path.suffix for path in paths}
    return (paths[0].parent / ("{case}" + affix + (endings.pop() if len(endings) == 1 else ".*"))).as_posix()


def _values(survey: Survey, masks: list[PurePosixPath]) -> tuple[bool, str]:
    """Whether the masks are in colours, and what they hold, in words."""
    values: set[tuple[int, ...]] = set()
    in_colours = False
    for path in masks[:: max(1, len(masks) // LOOKED_AT)]:
        try:
            samples = decode_picture(survey.folder / path).samples  # (R,C) or (R,C,3)
        except ReadError as error:
            return False, str(error)
        pixels = samples.reshape(-1, 1 if samples.ndim == 2 else samples.shape[2])
        in_colours |= bool(np.ptp(pixels, axis=1).any())
        values |= set(map(tuple, np.unique(pixels, axis=0)[:MANY].tolist()))
    shown = ", ".join(str(value[0] if not in_colours else list(value)) for value in sorted(values)[:MANY])
    more = ", and others" if len(values) > MANY else ""
    what = "colour but black" if in_colours else "value but 0"
    return in_colours, f"every {what} is taken for lesion; the masks hold {shown}{more}"


def _patient(proposal: Proposal, names: list[str]) -> None:
    found = patient_pattern(names)
    if found:
        proposal.block["patient"] = found[0]
        proposal.guesses["patient"] = f"the beginning of the names: {found[1]} patients with {len(names)} pictures"
    else:
        proposal.notes.append("no patients in the files' names: every picture counts as a patient of its own, and only "
                              "near-copies are kept in one part")
