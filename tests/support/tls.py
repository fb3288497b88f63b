"""A TLS front for a plain TCP server, with certificates of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """A certificate authority of the test's own, and its certificate for 127.0.0.1."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(directory: Path) -> Certificates:
    """Make certificates with the machine's openssl, valid for two days."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    authority = ("-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=a test's authority")
    openssl("req", "-x509", *_KEY, *authority, "-days", "2")
    openssl("req", *_KEY, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=redis")
    (directory / "server.ext").write_text("subjectAltName=IP:127.0.0.1\n")
    issued_by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
    what = ("-in", "server.csr", "-extfile", "server.ext", "-out", "server.pem")
    openssl("x509", "-req", *what, *issued_by)
    return Certificates(
        authority=directory / "ca.pem",
        certificate=directory / "server.pem",
        key=directory / "server.key",
    )


@contextlib.contextmanager
def tls_front(certificates: Certificates, target_port: int) -> Iterator[int]:
    """Run a TLS server that forwards everything to `target_port`; yield its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    loop = asyncio.new_event_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_read, to_write = await asyncio.open_connection("127.0.0.1", target_port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, to_write), pump(to_read, writer))

    async def stop(server: asyncio.Server) -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=loop.run_forever, name="tls-front")
    thread.start()
    try:
        started = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(serve, "127.0.0.1", 0, ssl=context), loop
        )
        server = started.result(timeout=10)
        yield int(server.sockets[0].getsockname()[1])
        asyncio.run_coroutine_threadsafe(stop(server), loop).result(timeout=10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)
        loop.close()
