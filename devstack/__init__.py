"""The development stack: all of Usher on one machine, for a demo, tests and development.

`python -m devstack up` runs a Redis and a LiveKit server of its own and the processes of the
Procfile under supervisord; a deployment needs none of this package.
"""

from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class StackError(Exception):
    """The stack cannot run; the message tells the person at the terminal why and what to do."""
