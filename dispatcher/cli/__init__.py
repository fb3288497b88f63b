"""`celery -A dispatcher dispatch ...`: what can an operator do and see from a shell?"""

from __future__ import annotations

import click


@click.group()
def dispatch() -> None:
    """Send, look at, watch and repair dispatches."""
