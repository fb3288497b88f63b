"""Load a top-level module of Usher's from beside this package, whatever the current folder.

Celery and Flower look for `celeryconfig.py` and `flowerconfig.py` in the current folder first,
where another program may have its own.
"""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def path_of(name: str) -> Path:
    """Return the file of that module, in a checkout as in an installed package."""
    return Path(__file__).resolve().parent.parent / f"{name}.py"


def load(name: str) -> ModuleType:
    """Execute that module anew and return it, without adding it to `sys.modules`."""
    spec = spec_from_file_location(name, path_of(name))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
