"""Copy LiveKit's browser SDK into the page that Usher serves.

`make vendor` has npm install what tests/browser/package-lock.json names (checked by its checksums).
This module copies the one file, its licence and those of the packages bundled in it, and writes
VERSION. How to renew it: CONTRIBUTING.md.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from typing import Any

from devstack import PROJECT_ROOT

PACKAGE = "livekit-client"
SCRIPT = "livekit-client.umd.js"
FOLDER = PROJECT_ROOT / "web" / "pages" / "client" / "vendor"
LOCK = PROJECT_ROOT / "tests" / "browser" / "package-lock.json"
INSTALLED = LOCK.parent / "node_modules"


def locked(name: str) -> dict[str, Any]:
    """Return a package's entry in the lock file."""
    entry: dict[str, Any] = json.loads(LOCK.read_text())["packages"][f"node_modules/{name}"]
    return entry


def version_text(script: bytes) -> str:
    """Make the text of VERSION, the file beside `script`."""
    entry = locked(PACKAGE)
    return (
        f"{PACKAGE} {entry['version']}, from npm, unchanged\n"
        f"package: {entry['integrity']}\n"
        f"dist/{SCRIPT}: sha256 {hashlib.sha256(script).hexdigest()}\n"
        "To renew it: devstack/vendor.py\n"
    )


def _bundled(name: str) -> Iterator[str]:
    """Yield the dependencies of `name`, and their dependencies."""
    for needed in locked(name).get("dependencies", {}):
        yield needed
        yield from _bundled(needed)


def _licences() -> Iterator[str]:
    for name in sorted(set(_bundled(PACKAGE))):
        folder = INSTALLED / name
        entry = locked(name)
        yield f"==== {name} {entry['version']} ({entry['license']})\n"
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.name.lower().startswith(("license", "licence", "copying")):
                yield f"{file.read_text('utf-8').strip()}\n"


def main() -> None:
    """Copy the SDK from where npm has put it."""
    FOLDER.mkdir(exist_ok=True)
    source = INSTALLED / PACKAGE
    script = (source / "dist" / SCRIPT).read_bytes()
    (FOLDER / SCRIPT).write_bytes(script)
    shutil.copyfile(source / "LICENSE", FOLDER / "LICENSE")
    (FOLDER / "LICENSE-bundled").write_text("\n".join(_licences()))
    (FOLDER / "VERSION").write_text(version_text(script))
    print(version_text(script), end="")


if __name__ == "__main__":
    main()
