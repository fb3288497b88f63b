"""Complete a save of Flower's history that a kill has interrupted.

Flower writes a new history beside the old one and then renames the files. Where Python's dbm keeps
three files (dbm.dumb), a kill between two renamings leaves files of two saves. Flower cannot read
those: it would put them aside and begin with nothing.
"""

from __future__ import annotations

import logging
import os
import shelve  # nosec B403  # Flower's own file, in a folder of its own
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

# Flower's suffix for a save in progress, and the suffixes that dbm adds.
_UNFINISHED: Final = ".tmp"
_SUFFIXES: Final = ("", ".db", ".dat", ".dir", ".bak")


def finish_save(db: str) -> None:
    """Make the files of `db` those of one save; call this before Flower reads them."""
    left = [suffix for suffix in _SUFFIXES if Path(f"{db}{_UNFINISHED}{suffix}").exists()]
    if not left:
        return
    if _is_whole(db):
        # Flower was killed while it wrote, or when next to nothing was left to rename.
        for suffix in left:
            os.remove(f"{db}{_UNFINISHED}{suffix}")
        return
    for suffix in left:
        os.replace(f"{db}{_UNFINISHED}{suffix}", f"{db}{suffix}")
    logger.warning("Flower was killed while it saved: carried that save to its end")


def _is_whole(db: str) -> bool:
    try:
        with shelve.open(db, flag="r") as kept:  # nosec B301
            return bool([kept["events"], kept["counter"]])
    except Exception:  # any error of dbm or pickle: Flower would get the same
        return False
