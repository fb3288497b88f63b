"""What the agent side may import: an agent's machine has no Celery and no web server."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import worker_agent
from tests.support.values import run_python

PACKAGE = Path(worker_agent.__file__).parent
NOT_ON_AN_AGENTS_MACHINE = {"celery", "kombu", "flask", "gunicorn", "flower"}
# A private name of an object that is not our own: neither self._x nor a dunder.
PRIVATE = re.compile(r"^_(?!_)")
OWN = {"self", "cls", "os"}  # `os._exit` has no public name

_IMPORT_ALL = """
import importlib, pkgutil, sys, worker_agent
for module in pkgutil.walk_packages(worker_agent.__path__, "worker_agent."):
    importlib.import_module(module.name)
print(*sorted(sys.modules))
"""


def test_no_module_brings_celery_or_a_web_server_along() -> None:
    loaded = set(run_python(_IMPORT_ALL).split())

    assert {"worker_agent.session", "worker_agent.echo.agent"} <= loaded
    assert not NOT_ON_AN_AGENTS_MACHINE & loaded


def private_names(module: Path) -> list[str]:
    """Private attributes and modules of others that a module uses, as `line: name`."""
    found = []
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Attribute) and PRIVATE.match(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in OWN):
                found.append(f"{node.lineno}: {node.attr}")
        elif isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(each.name for each in node.names)]
            found += [f"{node.lineno}: {name}" for name in names if PRIVATE.match(name)]
    return found


def test_private_names_of_others_stand_in_the_workarounds_alone() -> None:
    used = {
        str(module.relative_to(PACKAGE)): names
        for module in PACKAGE.rglob("*.py")
        if "livekit_workarounds" not in module.parts and (names := private_names(module))
    }
    assert used == {}


def test_each_workaround_says_what_it_is_for_what_guards_it_and_when_it_ends() -> None:
    workarounds = PACKAGE / "livekit_workarounds"
    for module in workarounds.glob("*.py"):
        if module.name in ("__init__.py", "unknown_release.py"):
            continue
        text = ast.get_docstring(ast.parse(module.read_text())) or ""
        assert re.search(r"^For livekit-(agents|rtc) \d+\.\d+", text, re.MULTILINE), module.name
        assert "https://github.com/" in text, module.name
        assert re.search(r"^Guard: ", text, re.MULTILINE), module.name
        assert re.search(r"^Remove ", text, re.MULTILINE), module.name
