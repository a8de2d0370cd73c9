"""The connections of one thread: requests in, responses out, with authorisation and nothing else around it.

`httpx.Client` takes half of the time that a request costs, for what is not wanted here: merging settings,
redirects, cookies, logging. So its parts are used: `httpx.Request`, `Response` and `Auth`, over the
connection pool that it uses too. No cookie is kept, and no redirect followed.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache

import httpcore
import httpx

from dagster_retl.connectors.base import Connector, Request

_HEADERS = (
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"gzip, deflate"),
    (b"Connection", b"keep-alive"),
    (b"User-Agent", b"dagster-retl"),
)
_KEPT_ALIVE = 5.0
"""Seconds that a connection is kept without use: some services close theirs after little more."""


class Connections:
    """Sends one thread's requests. Raises `httpx.TransportError`, and what the connector's `allow` does.

    auth: asked for every request. It may send others first (for a token); `allow` is asked of those as well.
    """

    def __init__(self, connector: Connector, auth: httpx.Auth | None) -> None:
        config = connector.config
        self._allow: Callable[[httpx.URL], None] = connector.allow
        self._auth = auth
        self._timeout = float(config.timeout)
        self._extensions = {"timeout": httpx.Timeout(config.timeout).as_dict()}
        self._base = httpx.URL(config.base_url or "")
        self._pool = _pool(connector)
        self._url = lru_cache(maxsize=32)(self._absolute)  # most connectors write to one address

    def close(self) -> None:
        self._pool.close()

    def build(self, request: Request) -> httpx.Request:
        """The request as it will be sent, but for what `auth` adds."""
        given = [(name.encode("ascii"), value.encode("utf-8")) for name, value in request.headers.items()]
        named = {name.lower() for name, _ in given}
        return httpx.Request(
            request.method,
            self._url(request.url),
            params=dict(request.params) or None,
            headers=[*((name, value) for name, value in _HEADERS if name.lower() not in named), *given],
            content=request.content,
            extensions=self._extensions,
        )

    def send(self, request: httpx.Request) -> httpx.Response:
        """The response, its body read and decoded."""
        if self._auth is None:
            return self._exchange(request)
        flow = self._auth.sync_auth_flow(request)
        try:
            wanted = next(flow)
            while True:
                response = self._exchange(wanted)
                wanted = flow.send(response)
        except StopIteration:
            return response
        finally:
            flow.close()

    def _exchange(self, request: httpx.Request) -> httpx.Response:
        self._allow(request.url)
        wanted = httpcore.Request(
            request.method,
            _core_url(request.url),
            headers=request.headers.raw,
            content=request.read(),
            extensions={**self._extensions, **request.extensions},
        )
        try:
            answer = self._pool.handle_request(wanted)
            try:
                content = b"".join(_in_time(answer.iter_stream(), self._timeout))
            finally:
                answer.close()
            return httpx.Response(
                answer.status, headers=answer.headers, content=content, extensions=answer.extensions, request=request
            )
        except httpx.DecodingError as error:
            raise httpx.RemoteProtocolError(f"the answer's body cannot be decoded: {error}", request=request) from error
        except _CORE_ERRORS as error:
            raise _ERRORS[type(error)](str(error), request=request) from error

    def _absolute(self, address: str) -> httpx.URL:
        """An address, relative to the base where it names no host."""
        url = httpx.URL(address)
        if url.is_absolute_url:
            return url
        return self._base.copy_with(raw_path=self._base.raw_path.rstrip(b"/") + b"/" + url.raw_path.lstrip(b"/"))


def _in_time(pieces: Iterable[bytes], seconds: float) -> Iterator[bytes]:
    """The pieces of a body, all of them within so many seconds: httpcore's timeout is for each piece, which bytes
    in drips never meet."""
    until = time.monotonic() + seconds
    for piece in pieces:
        if time.monotonic() > until:
            raise httpcore.ReadTimeout("the answer did not end in time")
        yield piece


@lru_cache(maxsize=256)
def _core_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _pool(connector: Connector) -> httpcore.ConnectionPool:
    context = connector.ssl_context()
    proxy = httpx.Proxy(connector.config.proxy) if connector.config.proxy else None
    return httpcore.ConnectionPool(
        ssl_context=context if isinstance(context, ssl.SSLContext) else _public_authorities(),
        proxy=httpcore.Proxy(str(proxy.url), auth=proxy.raw_auth) if proxy else None,
        keepalive_expiry=_KEPT_ALIVE,
    )


@cache
def _public_authorities() -> ssl.SSLContext:
    """Made once, shared by all threads: reading the certificates takes 20 ms."""
    return httpx.create_ssl_context(trust_env=False)


_ERRORS: dict[type[Exception], type[httpx.TransportError]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.ProxyError: httpx.ProxyError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
}
_CORE_ERRORS = tuple(_ERRORS)
