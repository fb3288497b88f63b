"""How does a test stop the world at an exact moment? By a gate between a process and a server.

Bytes pass through it unchanged. A test names the words of one request; the first request with all
of them is caught on its way to the server, or the server's reply to it on its way back, and is held
until the test, having killed whom it wanted to, lets it go or drops it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

_CHUNK_BYTES = 1 << 16
_CAUGHT_WITHIN_S = 60.0


class Catch:
    """One request, or its reply, that is to be held."""

    def __init__(self, words: tuple[bytes, ...], *, reply: bool) -> None:
        self.words = words
        self.reply = reply
        self.client_port = 0  # whose request it was
        self.taken = False
        self._caught = threading.Event()
        self._decided = threading.Event()
        self._may_pass = False

    def wait(self, *, within_s: float = _CAUGHT_WITHIN_S) -> None:
        """Return when it is held."""
        assert self._caught.wait(within_s), f"nobody sent {self.words} within {within_s} s"

    def let_go(self) -> None:
        """Pass on what is held."""
        self._may_pass = True
        self._decided.set()

    def drop(self) -> None:
        """Lose what is held, and the connection with it."""
        self._decided.set()

    def hold(self) -> bool:
        """Called by the gate: wait for the test; true when the bytes may pass."""
        self._caught.set()
        self._decided.wait()
        return self._may_pass


class Gate:
    """Listens on a port of its own and passes everything on to `target_port` on loopback."""

    def __init__(self, target_port: int) -> None:
        self.delay_s = 0.0  # how long every byte takes to the server
        self._target_port = target_port
        self._lock = threading.Lock()
        self._catches: list[Catch] = []
        self._open = True
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self._start(self._accept)

    def catch(self, *words: str, reply: bool = False) -> Catch:
        """Hold the next request with all these words, or (`reply`) the server's answer to it."""
        catch = Catch(tuple(word.encode() for word in words), reply=reply)
        with self._lock:
            self._catches.append(catch)
        return catch

    def forget_catches(self) -> None:
        """Hold nothing more, and drop what is held."""
        with self._lock:
            catches, self._catches = self._catches, []
        for catch in catches:
            catch.drop()

    def close(self) -> None:
        """Hang up on everybody."""
        self._open = False
        self.forget_catches()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets = list(self._sockets)
        for each in sockets:
            _hang_up(each)
        for thread in self._threads:
            thread.join(timeout=5)

    def _start(self, target: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        while self._open:
            try:
                client, (_, client_port) = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, client, client_port)

    def _serve(self, client: socket.socket, client_port: int) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target_port), timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._sockets |= {client, server}
        held_replies: list[Catch] = []
        back = self._start(self._pass_back, server, client, held_replies)
        self._pass_on(client, server, held_replies, client_port)
        back.join()
        with self._lock:
            self._sockets -= {client, server}
        client.close()
        server.close()

    def _pass_on(
        self, client: socket.socket, server: socket.socket, held: list[Catch], client_port: int
    ) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_CHUNK_BYTES):
                catch = self._take(data)
                if catch is not None:
                    catch.client_port = client_port
                    if catch.reply:
                        held.append(catch)
                    elif not catch.hold():
                        break
                if self.delay_s:
                    time.sleep(self.delay_s)
                server.sendall(data)
        _hang_up(client)
        _hang_up(server)

    def _pass_back(self, server: socket.socket, client: socket.socket, held: list[Catch]) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(_CHUNK_BYTES):
                if held and not held.pop().hold():
                    break
                client.sendall(data)
        _hang_up(client)
        _hang_up(server)

    def _take(self, data: bytes) -> Catch | None:
        with self._lock:
            for catch in self._catches:
                if not catch.taken and all(word in data for word in catch.words):
                    catch.taken = True
                    return catch
        return None


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def gates(*target_ports: int) -> Iterator[list[Gate]]:
    """Open gates, one for each port."""
    opened = [Gate(port) for port in target_ports]
    try:
        yield opened
    finally:
        for gate in opened:
            gate.close()
