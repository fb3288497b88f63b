"""The LiveKit that only answers, on a host: `python -m tests.several.answering ADDRESS`.

Where dispatching alone is measured; no agent ever joins.
"""

from __future__ import annotations

import sys

from aiohttp import web

from bench.fake_livekit import application

from .deployment import LIVEKIT_PORT

if __name__ == "__main__":
    web.run_app(application(), host=sys.argv[1], port=LIVEKIT_PORT, print=None, access_log=None)
