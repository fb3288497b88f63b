"""The entry point of a job: the program's own coroutine function."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from typing import cast

from livekit.agents import JobContext

from dispatcher.errors import ConfigurationError

EntryPoint = Callable[[JobContext], Awaitable[None]]


def load_entrypoint(path: str) -> EntryPoint:
    """Import the coroutine function that `module:function` names.

    Raises:
        ConfigurationError: there is no such module or function.
    """
    module_name, _, name = path.partition(":")
    try:
        entrypoint = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"Usher cannot start, USHER_AGENT_ENTRYPOINT={path}: {error}; name it as "
            "<module>:<function>, with the module's folder in PYTHONPATH"
        ) from error
    if not asyncio.iscoroutinefunction(entrypoint):
        raise ConfigurationError(
            f"Usher cannot start, USHER_AGENT_ENTRYPOINT={path} is not an async function: name one"
        )
    return cast(EntryPoint, entrypoint)
