"""URLs of object stores, and how to connect to what they name.

    s3://bucket/prefix?region=…                        https://arrow.apache.org/docs/python/generated/pyarrow.fs.S3FileSystem.html
    gs://bucket/prefix                                 https://arrow.apache.org/docs/python/generated/pyarrow.fs.GcsFileSystem.html
    abfs://container@account.dfs.core.windows.net/…    https://arrow.apache.org/docs/python/generated/pyarrow.fs.AzureFileSystem.html

Credentials come from the environment, as the vendors' own tools find them, or stand in the URL. No
error and no `repr` shows them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.mistakes import did_you_mean
from dagster_retl.model.redactor import Redactor

_HINT = "Set it to a folder, or to a URL of s3://, gs:// or abfs://, such as s3://bucket/prefix."

_S3_PARAMETERS = (
    "region", "scheme", "endpoint_override", "role_arn", "session_name", "external_id", "tls_ca_file_path",
    "force_virtual_addressing",
)  # fmt: skip
_S3_TIMES = {"connect_timeout": 10.0, "request_timeout": 60.0}  # seconds; the SDK's own are 1 and 3
_S3_ATTEMPTS = 5
_S3_REGION = ("AWS_REGION", "AWS_DEFAULT_REGION")
_S3_ENDPOINT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")

_GCS_PATIENCE = "retry_limit_seconds=120"  # its client tries for 15 minutes otherwise

_AZURE_PARAMETERS = (
    "blob_storage_authority", "blob_storage_scheme", "dfs_storage_authority", "dfs_storage_scheme",
    "tenant_id", "client_id", "client_secret", "sas_token",
)  # fmt: skip

_NO_SECRETS = {*_S3_PARAMETERS, *_AZURE_PARAMETERS, "retry_limit_seconds", "project_id"} - {
    "external_id", "client_secret", "sas_token",
}  # fmt: skip

# What the services' clients say, in the text of an `OSError`.
_DENIED = re.compile(
    r"ACCESS_DENIED|ACCESS_KEY|CLIENT_TOKEN|SIGNATURE|EXPIRED_TOKEN|HTTP status 40[13]"  # Amazon
    r"|PERMISSION_DENIED|UNAUTHENTICATED|to authenticate"  # Google
    r"|Authentication|Authorization|Credential"  # Microsoft
)


@dataclass(frozen=True, slots=True)
class ObjectLocation:
    """A prefix in a bucket, or in what the vendor calls so.

    root: `bucket/prefix`. shown: the URL without credentials and parameters. redact: takes secrets
    out of a text. connect: makes the `pyarrow.fs.FileSystem`; may ask the network.
    """

    bucket: str
    root: str
    shown: str
    redact: Redactor = field(repr=False)
    connect: Callable[[], Any] = field(repr=False)


def locate(url: str, *, setting: str) -> ObjectLocation:
    """What a URL names. Raises `ConfigurationError`, which does not quote the URL, as it may hold a key.

    setting: what in retl.yaml the URL stands in.
    """
    try:
        parts, (bucket, prefix, connect) = _understood(url)
    except _UrlError as error:
        raise ConfigurationError(f"the URL in `{setting}` {error}", hint=error.hint) from None
    root = "/".join(filter(None, [bucket, prefix]))
    return ObjectLocation(bucket, root, f"{parts.scheme}://{root}", Redactor(_secrets(parts)), connect)


def denied(error: object) -> bool:
    """Whether an object store refused credentials or rights, by the text of its client's error."""
    return _DENIED.search(str(error)) is not None


class _UrlError(Exception):
    """What is wrong with a URL, as the rest of a sentence, and what to do about it."""

    def __init__(self, problem: str, hint: str | None = _HINT) -> None:
        super().__init__(problem)
        self.hint = hint


_Understood = tuple[str, str, Callable[[], Any]]
"""Bucket, prefix, connect."""


def _understood(url: str) -> tuple[SplitResult, _Understood]:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _not_understood("it is not a URL") from None
    kind = _KINDS.get(parts.scheme)
    if kind is None:
        raise _UrlError(f"begins with {parts.scheme}://, which is not supported")
    found = kind(parts)
    if not found[0]:
        raise _not_understood("it names no bucket")
    return parts, found


def _s3(parts: SplitResult) -> _Understood:
    bucket = parts.netloc.rpartition("@")[2]
    if ":" in bucket:
        raise _not_understood(
            "a colon stands where the bucket should be",
            "Percent-encode keys (a slash is %2F), or leave them to the environment. A server of your own is "
            "named by ?endpoint_override=host:port.",
        )
    settings: dict[str, Any] = _parameters(parts, _S3_PARAMETERS)
    if "force_virtual_addressing" in settings:
        settings["force_virtual_addressing"] = settings["force_virtual_addressing"] == "true"
    if parts.username and parts.password:
        settings |= {"access_key": unquote(parts.username), "secret_key": unquote(parts.password)}
    return bucket, _prefix(parts), partial(_connect_s3, bucket, settings)


def _connect_s3(bucket: str, settings: dict[str, Any]) -> Any:
    """Not `FileSystem.from_uri`, which repeats no request that the service refuses because it is busy."""
    endpoint = settings.get("endpoint_override") or _from_environment(_S3_ENDPOINT)
    region = settings.get("region") or _from_environment(_S3_REGION)
    if not region and not endpoint:
        region = fs.resolve_s3_region(bucket)
    retries = fs.AwsStandardS3RetryStrategy(max_attempts=_S3_ATTEMPTS)
    where = {"endpoint_override": endpoint, "region": region}
    return fs.S3FileSystem(retry_strategy=retries, **_S3_TIMES, **{**settings, **where})


def _from_environment(names: tuple[str, ...]) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _gcs(parts: SplitResult) -> _Understood:
    if "retry_limit_seconds" not in parts.query:
        parts = parts._replace(query="&".join(filter(None, [parts.query, _GCS_PATIENCE])))
    url = parts.geturl()
    try:
        filesystem, _ = fs.FileSystem.from_uri(url)
    except (ValueError, OSError, pa.ArrowException) as error:
        raise _not_understood(Redactor([url, *_secrets(parts)])(error)) from None  # the error may quote the URL
    return parts.netloc.rpartition("@")[2], _prefix(parts), lambda: filesystem


def _azure(parts: SplitResult) -> _Understood:
    """Not `FileSystem.from_uri`, which takes no account key."""
    account, _, domain = (parts.hostname or "").partition(".")
    suffix = domain.removeprefix("dfs.").removeprefix("blob.")
    if not parts.username or not account or suffix in ("", domain):
        raise _not_understood("write abfs://container@account.dfs.core.windows.net/prefix")
    where = {"blob_storage_authority": f".blob.{suffix}", "dfs_storage_authority": f".dfs.{suffix}"}
    settings = where | _parameters(parts, _AZURE_PARAMETERS)
    if parts.password:
        settings["account_key"] = unquote(parts.password)
    return parts.username, _prefix(parts), partial(fs.AzureFileSystem, account, **settings)


_KINDS: dict[str, Callable[[SplitResult], _Understood]] = {
    "s3": _s3, "gs": _gcs, "gcs": _gcs, "abfs": _azure, "abfss": _azure,
}  # fmt: skip


def _prefix(parts: SplitResult) -> str:
    return unquote(parts.path).strip("/")


def _parameters(parts: SplitResult, known: Collection[str]) -> dict[str, str]:
    parameters = dict(parse_qsl(parts.query))
    for name in parameters:
        if name not in known:
            raise _UrlError(f"has an unknown parameter {name!r}", did_you_mean(name, known))
    return parameters


def _secrets(parts: SplitResult) -> Iterator[str]:
    for value in (parts.password, parts.username if parts.scheme == "s3" else None):
        if value:
            yield from (value, unquote(value))
    for name, value in parse_qsl(parts.query):
        if name not in _NO_SECRETS:
            yield value


def _not_understood(why: str, hint: str = _HINT) -> _UrlError:
    return _UrlError(f"cannot be understood: {why}", hint)
