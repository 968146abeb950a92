"""What a NIfTI header says twice, and must say alike: where its voxels lie and how large they are.

A header has two affines. sform and qform with the same code are the same space, so they must agree; where the codes
differ, one was registered to another scan or a template, and only left and right and the axes' order must agree.
"""

from __future__ import annotations

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import aff2axcodes

CORNER_TOLERANCE = 0.5  # of the smallest voxel side: no voxel is then taken for its neighbour
SIDE_TOLERANCE = 0.01  # of a voxel's side
TEMPLATES = (3, 4, 5)  # codes of Talairach's, the MNI's and other templates, onto which a volume was stretched


def contradiction(image: nib.Nifti1Pair) -> str:
    """What the header says against itself, in a sentence without an end; "" where there is nothing."""
    header = image.header
    codes = {name: int(header[f"{name}_code"]) for name in ("sform", "qform")}
    if not codes["sform"]:
        return ""
    sform = header.get_sform()
    if codes["qform"]:
        found = _between(sform, header.get_qform(), codes, image.shape[:3])
        if found:
            return found
    sides, zooms = voxel_sizes(sform), np.array(header.get_zooms()[:3], np.float64)
    if codes["sform"] not in TEMPLATES and not np.allclose(sides, zooms, rtol=SIDE_TOLERANCE, atol=0):
        return (f"contradicts itself: its voxels measure {_short(sides)} mm by its sform, {_short(zooms)} mm by its "
                "pixdim")
    return ""


def _between(sform: np.ndarray, qform: np.ndarray, codes: dict[str, int], shape: tuple[int, ...]) -> str:
    both = f"its sform (code {codes['sform']}) and its qform (code {codes['qform']})"
    axes = ["".join(aff2axcodes(affine)) for affine in (sform, qform)]
    if axes[0] != axes[1] and (codes["sform"] == codes["qform"] or not _near(sform, qform)):
        return f"contradicts itself: by {both} its axes point to {axes[0]} and to {axes[1]}"
    if codes["sform"] != codes["qform"]:
        return ""
    corners = np.array(np.meshgrid(*[(0, length - 1) for length in shape])).reshape(3, -1).T  # (8,3)
    apart = np.linalg.norm(apply_affine(sform, corners) - apply_affine(qform, corners), axis=1).max()
    if apart > CORNER_TOLERANCE * voxel_sizes(sform).min():
        return f"contradicts itself: {both} put its corners up to {apart:.3g} mm apart"
    return ""


def _near(sform: np.ndarray, qform: np.ndarray) -> bool:
    """Whether two affines are a rotation of less than 45 degrees apart, as a registration may turn a tilted head."""
    turned = np.linalg.inv(qform[:3, :3] / voxel_sizes(qform)) @ (sform[:3, :3] / voxel_sizes(sform))  # (3,3)
    return bool((np.diag(turned) > np.sqrt(0.5)).all())


def _short(numbers: np.ndarray) -> str:
    return " x ".join(f"{number:.4g}" for number in numbers)
