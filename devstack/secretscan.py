"""Scan the project's files for secrets.

detect-secrets finds candidates; `.secrets.baseline` says what to look for, where, and which
candidates were reviewed and are no secrets. detect-secrets' own hook wants the baseline changed
whenever a line moves; here a secret is identified by its file and its hash.
"""

from __future__ import annotations

import sys

from detect_secrets.core import baseline, scan
from detect_secrets.core.secrets_collection import SecretsCollection

from devstack import PROJECT_ROOT

BASELINE = PROJECT_ROOT / ".secrets.baseline"
_RENEW = "python -m devstack.secretscan --accept"


def look(*files: str) -> tuple[SecretsCollection, list[str]]:
    """Return the candidates in `files`, and a line for each that is not in the baseline."""
    known = baseline.load(baseline.load_from_file(str(BASELINE)), BASELINE.name)
    found = SecretsCollection()
    found.scan_files(*files)
    new = sorted((name, secret.line_number, secret.type) for name, secret in found - known)
    return found, [f"{name}:{line}: looks like a secret ({kind})" for name, line, kind in new]


def main(arguments: list[str]) -> int:
    """Print the candidates that are not in the baseline; with `--accept`, add them."""
    # The baseline is full of hashes.
    found, new = look(*(name for name in scan.get_files_to_scan(".") if name != BASELINE.name))
    if arguments == ["--accept"]:
        baseline.save_to_file(found, str(BASELINE))
        return 0
    for line in new:
        print(line)
    if new:
        print(f"If they are none, `{_RENEW}` says so; if one is, it must also be replaced.")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
