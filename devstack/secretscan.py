"""Has somebody put a secret into a file of the project?

detect-secrets finds what looks like one; `.secrets.baseline` holds what to look for, where, and
what was looked at and is none. detect-secrets' own hook wants the baseline changed whenever a line
moves; here a secret is known by its file and its hash.
"""

from __future__ import annotations

import sys

from detect_secrets.core import baseline, scan
from detect_secrets.core.secrets_collection import SecretsCollection

from devstack import PROJECT_ROOT

BASELINE = PROJECT_ROOT / ".secrets.baseline"
_RENEW = "python -m devstack.secretscan --accept"


def main(arguments: list[str]) -> int:
    """Print what is not in the baseline; with `--accept`, put it there."""
    known = baseline.load(baseline.load_from_file(str(BASELINE)), str(BASELINE))
    found = SecretsCollection()
    found.scan_files(*scan.get_files_to_scan("."))
    if arguments == ["--accept"]:
        baseline.save_to_file(found, str(BASELINE))
        return 0
    new = sorted((name, secret.line_number, secret.type) for name, secret in found - known)
    for name, line, kind in new:
        print(f"{name}:{line}: looks like a secret ({kind})")
    if new:
        print(f"If they are none, `{_RENEW}` says so; if one is, it must also be replaced.")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
