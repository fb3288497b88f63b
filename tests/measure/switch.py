"""How can counting be switched off, to see what it costs? By a key in Redis, for this alone.

The scripts that a process loads are made to look for that key first. `site/sitecustomize.py` does
it in every process of a stack; the product knows nothing of it.
"""

from __future__ import annotations

from typing import Final

from dispatcher.ledger import scripts

OFF: Final = "usher:measure:off"

_ASK: Final = f"local COUNTING = redis.call('EXISTS', '{OFF}') == 0\n"
_STUBS: Final = {
    "counting": """
if not COUNTING then
  add, observe = function() end, function() end
  write_counts, write_agent_counts = function() end, function() end
end
""",
    "stages": """
if not COUNTING then
  stages, first_result = function() return {} end, function() end
end
""",
}


def install() -> None:
    """Have the scripts of this process ask; to be called before the first one is loaded."""
    source = scripts._source

    def switched(name: str) -> str:
        before = _ASK if name == "counting" else ""
        return before + source(name) + _STUBS.get(name, "")

    scripts._source = switched
