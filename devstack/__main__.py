"""Run the development stack."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from devstack import PROJECT_ROOT, StackError
from devstack.config import StackConfig
from devstack.demo import run_demo
from devstack.interrupts import interrupt_on_signals
from devstack.processes import end_with_parent
from devstack.stack import provision, running_stack, wait_while_alive

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    interrupt_on_signals()
    try:
        if options.with_parent:
            end_with_parent()
        return int(options.run(options))
    except StackError as error:
        print(f"usher: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return _INTERRUPTED


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m devstack", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--with-parent", action="store_true", help="stop when the calling process dies (Linux)"
    )
    common.add_argument(
        "--procfile",
        type=Path,
        default=PROJECT_ROOT / "Procfile",
        metavar="FILE",
        help="the processes to run (default: the project's)",
    )
    for name, run, summary in (
        ("up", _up, "run the whole stack until Ctrl-C"),
        ("demo", _demo, "start the stack, send one dispatch through it, show what came of it"),
        ("provision", _provision, "get the server binaries and start nothing"),
    ):
        command = commands.add_parser(name, parents=[common], help=summary, description=summary)
        command.set_defaults(run=run)
    return parser.parse_args(arguments)


def _up(options: argparse.Namespace) -> int:
    with running_stack(
        run_dir=_run_dir(default=".run"), environ=os.environ, procfile=options.procfile
    ) as (config, supervisor):
        print(_ready_line(config), flush=True)
        try:
            wait_while_alive(supervisor)
        except KeyboardInterrupt:
            return 0


def _demo(options: argparse.Namespace) -> int:
    # A folder and, where need be, ports of its own: a demo can run beside `up`.
    with running_stack(
        run_dir=_run_dir(default=".run/demo"),
        environ=os.environ,
        procfile=options.procfile,
        move_busy_defaults=True,
    ) as (config, _):
        return run_demo(config)


def _provision(_options: argparse.Namespace) -> int:
    provision(os.environ)
    return 0


def _run_dir(*, default: str) -> Path:
    named = os.environ.get("USHER_RUN_DIR")
    return Path(named).resolve() if named else PROJECT_ROOT / default


def _ready_line(config: StackConfig) -> str:
    return (
        f"ready web={config.web_url} livekit={config.livekit_url} "
        f"redis=127.0.0.1:{config.ports.redis} flower={config.flower_url} "
        f"agent={config.agent_url} credentials={config.env_file}"
    )


if __name__ == "__main__":
    sys.exit(main())
