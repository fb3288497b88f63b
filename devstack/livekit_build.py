"""Build a LiveKit server of a fixed version where the machine has none."""

from collections.abc import Mapping
from pathlib import Path

from devstack import go_build

# The last version that `go install` takes: the go.mod of later ones has replace directives.
LIVEKIT_VERSION = "v1.13.5"

LIVEKIT = go_build.GoProgram(
    name="livekit-server",
    title="the LiveKit server",
    package="github.com/livekit/livekit-server/cmd/server",
    version=LIVEKIT_VERSION,
    packages_about=800,
    minutes="2.5",
    variable="USHER_LIVEKIT_SERVER",
)


def built_livekit_server(environ: Mapping[str, str], tools_dir: Path = go_build.TOOLS_DIR) -> Path:
    """Return the LiveKit server in `tools_dir`; build it first where it is missing."""
    return go_build.built(LIVEKIT, environ, tools_dir)
