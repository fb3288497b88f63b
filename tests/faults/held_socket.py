"""What does systemd do for `usher-web.socket`? It holds the door; this does, for tests.

Usage: python -m tests.faults.held_socket COUNT COMMAND. One listening socket at USHER_WEB_HOST and
USHER_WEB_PORT, handed as systemd hands it (sd_listen_fds) to COUNT processes that run COMMAND by
sh; each one that ends is started again (`Restart=always`). SIGTERM ends all of them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading

LISTEN_FDS_START = 3


def _start(command: str, listener: socket.socket, number: int) -> subprocess.Popen[bytes]:
    # The shell's pid is the command's, as with systemd: Procfile's commands begin with `exec`.
    script = f"exec {LISTEN_FDS_START}<&{listener.fileno()}; export LISTEN_PID=$$; {command}"
    environ = {**os.environ, "LISTEN_FDS": "1", "USHER_WEB_NUMBER": str(number)}
    return subprocess.Popen(
        ["/bin/sh", "-c", script], env=environ, pass_fds=[listener.fileno()], close_fds=True
    )


def main(count: int, command: str) -> None:
    """Hold the socket until SIGTERM."""
    ending = threading.Event()
    running: list[subprocess.Popen[bytes]] = []

    def end(*_: object) -> None:
        ending.set()
        for process in running:
            process.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    address = os.environ["USHER_WEB_HOST"], int(os.environ["USHER_WEB_PORT"])
    with socket.create_server(address, backlog=2048) as listener:
        running += [_start(command, listener, number) for number in range(count)]
        while not ending.is_set():
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            for number, process in enumerate(running):
                if process.poll() is not None and not ending.is_set():
                    running[number] = _start(command, listener, number)
        for process in running:
            process.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
