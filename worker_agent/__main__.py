"""`python -m worker_agent`: run one agent server."""

from __future__ import annotations

import asyncio
import sys

from dispatcher import start_up
from dispatcher.connections.redis_cluster import refuse_cluster
from dispatcher.errors import ConfigurationError
from dispatcher.observability import liveness
from dispatcher.observability.logs import configure
from dispatcher.settings import CommonSettings, load
from worker_agent.settings import AgentSettings


def main() -> int:
    """Run until told to stop; exit code 2 and one clear line when a setting is wrong."""
    try:
        common = load(CommonSettings)
        settings = load(AgentSettings)
        liveness.check(common.alive_file)
        start_up.check_address(
            settings.host, settings.port, named="USHER_AGENT_HOST and USHER_AGENT_PORT"
        )
        refuse_cluster(common.redis_url.get_secret_value(), timeout_s=common.redis_timeout_s)
        configure(log_format=common.log_format, level=common.log_level)
        # Not before: livekit-agents takes a second to import.
        from worker_agent.server import serve

        asyncio.run(serve(settings))
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
