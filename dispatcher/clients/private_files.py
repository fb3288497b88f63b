"""Read the files that decide who may do what: the file of clients, and the secrets it points to.

A file that every user of the machine can change is refused, because each of them could give
themselves a key. A secret that every user can read is told: container platforms mount secrets so
(Kubernetes with mode 0644, Docker with 0444), where the container has one user.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from dispatcher.errors import ConfigurationError

logger = logging.getLogger(__name__)


def read_file(path: Path) -> str:
    """The text of a file that only its owner and group can change.

    Raises:
        ConfigurationError: it cannot be read, or everybody can change it; the message says what to
            do.
    """
    return _read(path)[0]


def read_secret(path: Path) -> str:
    """The secret in a file, without the space around it; logs a warning if everybody can read it.

    Raises:
        ConfigurationError: as `read_file`.
    """
    text, mode = _read(path)
    if mode & stat.S_IROTH:
        logger.warning(
            f"every user of this machine can read the secret in {path} (mode {mode:04o}); take "
            f"that away with chmod o-r {path}, or have it mounted with mode 0440",
            extra={"file": str(path), "mode": f"{mode:04o}"},
        )
    return text.strip()


def _read(path: Path) -> tuple[str, int]:
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {type(error).__name__}") from None
    if mode & stat.S_IWOTH:
        raise ConfigurationError(
            f"{path} can be changed by every user of this machine (mode {mode:04o}); take that "
            f"away with chmod o-w {path}"
        )
    return text, mode
