"""File patterns of a data set's block, and names of files as text.

`*`, `?` and `[abc]` match within one name as in a shell; `{case}` matches as little as it can of one name and is the
scan's name, the same wherever it occurs again; `{class}` and `{split}` match the names listed under `classes` and
`splits`. The ending (`.png`, `.nii.gz`) matches in capitals too.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from flipside.scans.endings import DICOM, NIFTI, PICTURES

_WILDCARDS = {"*": "[^/]*", "?": "[^/]", "[": r"\["}
_ENDING = re.compile(r"(\.nii)?\.[A-Za-z][A-Za-z0-9]*$")
_MASK_NAME = re.compile(r"(?i)[ _.-]*(masks?|seg|segmentation|labels?|gt|groundtruth|annotation)([ _.-]*\d+)?$")


def readable(name: str) -> str:
    """A file's name as text that can be written and compared: letters in one Unicode form (NFC), bytes that are no
    UTF-8 as `\\xfc`."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def split_ending(name: str) -> tuple[str, str]:
    """A file's name or a pattern without its ending, and the ending; `.nii.gz` is one."""
    match = _ENDING.search(name)
    return (name[:match.start()], match[0]) if match else (name, "")


def glob_pattern(root: Path, pattern: str) -> list[Path]:
    """Files and folders below `root` that a pattern may name, whatever its placeholders are; sorted, none hidden."""
    body, ending = split_ending(re.sub(r"\{(case|class|split)\}", "*", pattern))
    loose = body + "".join(f"[{letter.lower()}{letter.upper()}]" if letter.isalpha() else letter for letter in ending)
    return sorted(path for path in root.glob(loose) if not path.name.startswith("."))


def compile_pattern(pattern: str, names: Mapping[str, Sequence[str]]) -> re.Pattern[str]:
    """Regular expression of a pattern for paths relative to the root; placeholders become the groups case, class and
    split. `names`: what {class} and {split} may be."""
    body, ending = split_ending(pattern)
    parts, seen = [], set()
    for piece in re.split(r"(\{case\}|\{class\}|\{split\})", body):
        key = piece[1:-1]
        if piece in seen:
            parts.append(f"(?P={key})")
        elif piece in ("{case}", "{class}", "{split}"):
            options = "|".join(map(re.escape, sorted(names.get(key, []), key=len, reverse=True)))
            parts.append(f"(?P<{key}>{options or '[^/]+?'})")
            seen.add(piece)
        else:
            parts += [_WILDCARDS.get(token, token if token.startswith("[") else re.escape(token))
                      for token in re.findall(r"[*?]|\[[^\]]*\]|[^*?\[]+|\[", piece)]
    return re.compile("".join(parts) + f"(?i:{re.escape(ending)})")


def almost_matching(root: Path, pattern: str, matched: Iterable[Path]) -> list[Path]:
    """Files that differ from a pattern's only by another ending of the same kind, such as .jpeg for .jpg, and aren't
    beside a file that matches, of the same name but for the ending."""
    body, ending = split_ending(pattern)
    alike = next((kind for kind in (PICTURES, NIFTI, DICOM) if ending.lower() in kind), ())
    others = [other for other in alike if other != ending.lower()]
    taken = {str(path.parent / split_ending(path.name)[0]) for path in matched}
    return [path for other in others for path in glob_pattern(root, body + other)
            if path.is_file() and str(path.parent / split_ending(path.name)[0]) not in taken]


def labels_of_others(cases: Mapping[str, str], patterns: Iterable[str]) -> set[str]:
    """Of files {path relative to the root: case} those that patterns of label files name as another one's labels: what
    {case} stands for is another file's case, or the pattern has no {case}."""
    compiled, known = [compile_pattern(pattern, {}) for pattern in patterns], set(cases.values())
    return {file for file, case in cases.items() for pattern in compiled if (match := pattern.fullmatch(file))
            and ("case" not in pattern.groupindex or match["case"] in known - {case})}


def masks_among(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """(file, the other one whose mask it seems to be by its name) of files such as `7_mask.png` beside `7.png`."""
    by_stem = {str(path.parent / split_ending(path.name)[0]): path for path in paths}
    pairs = []
    for stem, path in by_stem.items():
        bare = _MASK_NAME.sub("", stem)
        if bare != stem and bare in by_stem:
            pairs.append((path, by_stem[bare]))
    return pairs
