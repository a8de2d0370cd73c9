"""An S3 service on loopback (moto's server), in a process of its own, and a proxy that cuts connections."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from programs import free_port

KEY, SECRET = "AKIATESTKEY", "very/secret+key"  # a secret as Amazon makes them: it has to be encoded in a URL
REGION = "eu-west-3"


@dataclass(frozen=True)
class Bucket:
    """A bucket of a server."""

    name: str
    endpoint: str
    client: Any

    def url(self, prefix: str = "state", *, key: str = KEY, secret: str = SECRET, endpoint: str | None = None) -> str:
        """For `state:`; with the credentials in it."""
        user = f"{quote(key, safe='')}:{quote(secret, safe='')}"
        where = f"region={REGION}&scheme=http&endpoint_override={endpoint or self.endpoint}"
        return f"s3://{user}@{self.name}/{prefix}?{where}"

    def names(self, prefix: str = "") -> set[str]:
        """The keys of the objects, without the empty ones that stand for folders."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return {each["Key"] for page in pages for each in page.get("Contents", ()) if not each["Key"].endswith("/")}

    def uploads(self) -> list[str]:
        """The keys of uploads in parts that were begun and not completed."""
        return [each["Key"] for each in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())]

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def overwrite(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def read(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())


@dataclass(frozen=True)
class ObjectServer:
    """Where it listens: `host:port`."""

    endpoint: str

    def client(self, service: str, key: str = KEY, secret: str = SECRET) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            service,
            endpoint_url=f"http://{self.endpoint}",
            region_name=REGION,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def bucket(self, name: str | None = None) -> Bucket:
        """A new one."""
        client, name = self.client("s3"), name or f"bucket-{secrets.token_hex(6)}"
        client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        return Bucket(name, self.endpoint, client)


@contextmanager
def object_server(environment: Mapping[str, str] | None = None) -> Iterator[ObjectServer]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await(port, process)
        yield ObjectServer(f"127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, "moto's server did not start"
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError("moto's server does not answer")


class Proxy:
    """Forwards connections to a server, until clients have sent `allowance` bytes.

    Then it cuts all connections and takes no more, or, with `stalls`, keeps them and forwards
    nothing. busy: how many connections are first answered that the service is too busy. lie: bytes
    of an answer, and what clients see instead. sent, returned: bytes from clients and to them so far.
    """

    def __init__(
        self,
        endpoint: str,
        allowance: int = 2**62,
        *,
        stalls: bool = False,
        busy: int = 0,
        lie: tuple[bytes, bytes] = (b"\0", b"\0"),
    ) -> None:
        host, _, port = endpoint.partition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._stalls = stalls
        self._lie = lie
        self.busy = busy
        self.allowance = allowance
        self.sent = self.returned = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
        self._listener.close()
        self._cut()

    @property
    def spent(self) -> bool:
        return self.sent > self.allowance

    def _accept(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                client = self._listener.accept()[0]
                if self.spent and not self._stalls:
                    client.close()
                    continue
                if self.busy:
                    self.busy -= 1
                    _refuse_politely(client)
                    continue
                server = socket.create_connection(self._target)
                with self._lock:
                    self._sockets += [client, server]
                threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, outward: bool) -> None:
        with suppress(OSError), closing(source), closing(target):
            while content := source.recv(65536):
                with self._lock:
                    self.sent += len(content) if outward else 0
                    self.returned += 0 if outward else len(content)
                if self.spent and outward:
                    self._refuse()
                target.sendall(content if outward else content.replace(*self._lie))

    def _refuse(self) -> None:
        if self._stalls:
            self._closed.wait()
        else:
            self._cut()

    def _cut(self) -> None:
        with self._lock:
            for each in self._sockets:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
            self._sockets.clear()


_BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


def _refuse_politely(client: socket.socket) -> None:
    with suppress(OSError), closing(client):
        client.recv(65536)
        head = f"HTTP/1.1 503 Slow Down\r\nContent-Length: {len(_BUSY)}\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode() + _BUSY)
