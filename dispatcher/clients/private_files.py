"""Read the file of clients and the secrets that it points to, with a check of their modes.

A file that every user of the machine can change is refused, because any user could add a key. A
secret that every user can read is logged only: container platforms mount secrets like this
(Kubernetes with mode 0644, Docker with 0444), and their containers have one user.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from dispatcher.errors import ConfigurationError

logger = logging.getLogger(__name__)


def read_file(path: Path) -> str:
    """Return the text of a file that only its owner and group can change.

    Raises:
        ConfigurationError: it cannot be read, or every user can change it.
    """
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
    return text


def read_secret(path: Path) -> str:
    """Return a secret as `read_file`, stripped; log a warning if every user can read it."""
    text = read_file(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & stat.S_IROTH:
        logger.warning(
            f"every user of this machine can read the secret in {path} (mode {mode:04o}); take "
            f"that away with chmod o-r {path}, or have it mounted with mode 0440",
            extra={"file": str(path), "mode": f"{mode:04o}"},
        )
    return text.strip()
