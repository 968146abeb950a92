"""A process that never stops writing; run by test_killed.py."""

from pathlib import Path

from flipside.core.files import atomic_file, atomic_folder

FILES = 40


def write_versions(out: Path) -> None:
    """A folder whose files all hold one version number, and a long list, again and again."""
    version = int(next((out / "folder").iterdir()).read_text()) if (out / "folder").is_dir() else 0
    while True:
        version += 1
        with atomic_folder(out / "folder") as folder:
            for number in range(FILES):
                (folder / str(number)).write_text(str(version))
        with atomic_file(out / "file.json") as file:
            file.write_text(str([version] * 1000))
