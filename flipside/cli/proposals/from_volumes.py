"""A block of the layout `nifti_cases`: which NIfTI files are scans, channels and labels of one case."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np

from flipside.cli.proposals.proposal import Proposal
from flipside.cli.proposals.survey import Survey, bare
from flipside.cli.proposals.words import MASKS, patient_pattern
from flipside.scans.readers import ReadError, read_nifti

LOOKED_AT = 5  # label files whose values are looked at
SHARE = 0.5  # of the cases that must have a file for it to be a channel


def propose_volumes(survey: Survey) -> Proposal | str:
    """Layout nifti_cases, or why not."""
    if not survey.volumes:
        return "no NIfTI file"
    for template in (_by_folder, _by_last_word, _by_name):
        groups: dict[str, dict[str, PurePosixPath]] = {}  # pattern -> case -> file
        for path in survey.volumes:
            case, pattern = template(path)
            if case:
                groups.setdefault(pattern, {})[case] = path
        cases = {case for files in groups.values() for case in files}
        common = {pattern: files for pattern, files in groups.items() if len(files) > SHARE * len(cases)}
        labels = [pattern for pattern in common if MASKS.search(pattern)]
        images = [pattern for pattern in common if pattern not in labels]
        if labels and images:
            return _proposal(survey, images, labels, common, cases)
    return (f"{len(survey.volumes)} NIfTI files, such as {survey.volumes[0]}, but no labels beside them: make "
            "a table with the columns path and label")


def _by_folder(path: PurePosixPath) -> tuple[str, str]:
    """A folder per case: {case}/scan.nii.gz, {case}/{case}_t1.nii.gz."""
    if len(path.parts) < 2:
        return "", ""
    case = path.parent.name
    return case, (path.parent.parent / "{case}" / path.name.replace(case, "{case}")).as_posix()


def _by_last_word(path: PurePosixPath) -> tuple[str, str]:
    """The case at the beginning of the name: {case}_t1.nii.gz."""
    case, line, last = bare(path.name).rpartition("_")
    return case, (path.parent / f"{{case}}{line}{last}{path.name[len(bare(path.name)):]}").as_posix()


def _by_name(path: PurePosixPath) -> tuple[str, str]:
    """Folders with files of the same names: images/{case}.nii.gz and labels/{case}.nii.gz."""
    name = bare(path.name)
    case = name.removesuffix("_0000")  # nnU-Net's number of the first channel
    return case, (path.parent / ("{case}" + name[len(case):] + path.name[len(name):])).as_posix()


def _proposal(survey: Survey, images: list[str], labels: list[str], files: dict[str, dict[str, PurePosixPath]],
              cases: set[str]) -> Proposal:
    images = sorted(images)
    block: dict = {"layout": "nifti_cases", "image": images[0] if len(images) == 1 else images,
                   "lesion": {"files": sorted(labels)[:1]}, "ignored": "any"}
    proposal = Proposal(block)
    if len(images) > 1:
        proposal.guesses["image"] = f"{len(images)} volumes of each case become channels"
    stripped = _zeros_around(survey, files[images[0]])
    if stripped:
        block["organ"], proposal.guesses["organ"] = "nonzero", stripped
    label = block["lesion"]["files"][0]
    proposal.guesses["lesion"] = _values(survey, list(files[label].values()))
    if len(labels) > 1:
        proposal.notes.append(f"other files that seem to be labels are not used: {', '.join(sorted(labels)[1:])}")
    incomplete = sorted(case for case in cases if any(case not in files[name] for name in (*images, label)))
    if incomplete:
        proposal.notes.append(f"{len(incomplete)} of {len(cases)} cases lack a file, such as {incomplete[0]}")
    found = patient_pattern(sorted(cases))
    if found:
        block["patient"] = found[0]
        proposal.guesses["patient"] = f"the beginning of the cases' names: {found[1]} patients with {len(cases)} scans"
    else:
        proposal.notes.append("every case counts as a patient of its own")
    return proposal


def _zeros_around(survey: Survey, files: dict[str, PurePosixPath]) -> str:
    """What speaks for a scan of which all but the organ was set to 0, such as a skull-stripped brain; else ""."""
    try:
        stored = read_nifti(survey.folder / files[min(files)]).stored  # (Z,R,C)
    except ReadError:  # the description names it
        return ""
    faces = [stored[0], stored[-1], stored[:, 0], stored[:, -1], stored[:, :, 0], stored[:, :, -1]]
    if stored.any() and not any(face.any() for face in faces):
        return f"all but the organ seems to be set to 0 ({(stored == 0).mean():.0%} of the voxels)"
    return ""


def _values(survey: Survey, paths: list[PurePosixPath]) -> str:
    """What the label files hold, in words."""
    values: set[float] = set()
    for path in paths[:: max(1, len(paths) // LOOKED_AT)]:
        try:
            volume = read_nifti(survey.folder / path)
        except ReadError as error:
            return str(error)
        for z in range(len(volume.stored)):
            values |= set(np.unique(volume.slice(z)).tolist())
    shown = ", ".join(f"{value:g}" for value in sorted(values)[:10]) + (", …" if len(values) > 10 else "")
    return f"every value but 0 is taken for lesion; the files hold {shown}: list the lesion's in `values`"
