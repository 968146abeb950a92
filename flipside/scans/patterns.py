"""File patterns of a data set's block.

`*`, `?` and `[abc]` match within one name as in a shell; `{case}` matches as little as it can of one name and is the
scan's name, the same wherever it occurs again; `{class}` and `{split}` match the names listed under `classes` and
`splits`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

_WILDCARDS = {"*": "[^/]*", "?": "[^/]", "[": r"\["}


def glob_pattern(root: Path, pattern: str) -> list[Path]:
    """Files and folders below `root` that a pattern may name, whatever its placeholders are; sorted, none hidden."""
    loose = re.sub(r"\{(case|class|split)\}", "*", pattern)
    return sorted(path for path in root.glob(loose) if not path.name.startswith("."))


def compile_pattern(pattern: str, names: Mapping[str, Sequence[str]]) -> re.Pattern[str]:
    """Regular expression of a pattern for paths relative to the root; placeholders become the groups case, class and
    split. `names`: what {class} and {split} may be."""
    parts, seen = [], set()
    for piece in re.split(r"(\{case\}|\{class\}|\{split\})", pattern):
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
    return re.compile("".join(parts))
