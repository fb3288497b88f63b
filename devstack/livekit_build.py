"""Which LiveKit server is built where the machine has none?"""

from collections.abc import Mapping
from pathlib import Path

from devstack import go_build

# The last version that `go install` takes: the go.mod of later ones has replace directives.
LIVEKIT_VERSION = "v1.13.5"

_LIVEKIT = go_build.GoProgram(
    name="livekit-server",
    title="the LiveKit server",
    package="github.com/livekit/livekit-server/cmd/server",
    version=LIVEKIT_VERSION,
    packages_about=800,
    minutes="2.5",
    instead="name a binary: USHER_LIVEKIT_SERVER=/path/to/livekit-server",
)


def built_livekit_server(environ: Mapping[str, str], tools_dir: Path = go_build.TOOLS_DIR) -> Path:
    """The LiveKit server in `tools_dir`, built now where it is not there yet."""
    return go_build.built(_LIVEKIT, environ, tools_dir)
