"""Write files atomically, readable by their owner only."""

from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Put `text` at `path`, readable by the owner only, in one step."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.touch(mode=0o600)  # before anything is in it
    temporary.write_text(text)
    temporary.replace(path)
