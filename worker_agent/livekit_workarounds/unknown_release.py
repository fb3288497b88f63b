"""Log that a release of a library has other private names than those that Usher uses."""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import version

logger = logging.getLogger(__name__)


@cache
def warn(library: str, consequence: str) -> None:
    """Log, once in a process, that this release of `library` is not known, and what that means."""
    logger.warning("%s %s is not known to Usher: %s", library, version(library), consequence)
