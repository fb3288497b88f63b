"""The default agent: it greets, and gives back what it hears and reads, without an AI or a key."""

from worker_agent.echo.agent import GREETING as GREETING
from worker_agent.echo.agent import entrypoint as entrypoint
