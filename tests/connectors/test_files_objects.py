"""Files on an object store: whole or not there, with few rights, and what is wrong where there are none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from file_readers import make_connector
from object_server import KEY, SECRET, Bucket, Proxy, object_server
from programs import free_port

from dagster_retl.errors import DestinationError, ErrorCode
from dagster_retl.model.rows import Batch, Operation
from dagster_retl.testing.rows import MadeRow, make_batch

PEOPLE = replace(make_batch([{"id": 1}, {"id": 2}], object_name="people"), run_id="retl_run_1", number=3)
GRANTS = 4  # requests before the server begins to ask for rights: a bucket, a user, its policy, its key


def large(size: int) -> Batch:
    row = MadeRow("1", {"id": 1}, {}, orjson.Fragment(b'{"id":"' + os.urandom(size // 2).hex().encode() + b'"}'))
    return Batch("people", Operation.UPSERT, [row], ("id",), "k", "run")


def failure(url: str, batch: Batch = PEOPLE) -> DestinationError:
    with pytest.raises(DestinationError) as caught:
        make_connector(url, format="jsonl").write(batch)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert not any(secret in told for secret in (SECRET, quote(SECRET, safe=""), KEY))
    return caught.value


def test_a_batch_is_an_object_that_is_replaced_when_it_is_sent_again(bucket: Bucket) -> None:
    connector = make_connector(bucket.url("out"))
    for _ in range(2):
        connector.write(PEOPLE)
        (name,) = bucket.names()
        assert name.startswith("out/people/run=retl_run_1/part-00003-")
        assert bucket.read(name) == b"id\r\n1\r\n2\r\n"
        bucket.overwrite(name, b"other")
    assert [info.api_name for info in connector.objects()] == ["people"]
    assert bucket.uploads() == []


def test_a_check_leaves_nothing(bucket: Bucket) -> None:
    account = make_connector(bucket.url("out")).check()
    assert account.id == f"s3://{bucket.name}/out"
    assert bucket.names() == set()


def test_a_prefix_where_nothing_is_has_no_objects(bucket: Bucket) -> None:
    assert make_connector(bucket.url("nowhere")).objects() == []


def test_files_go_into_the_bucket_itself_where_there_is_no_prefix(bucket: Bucket) -> None:
    make_connector(bucket.url("")).write(PEOPLE)
    (name,) = bucket.names()
    assert name.startswith("people/run=")


def test_a_large_file_goes_in_parts_and_arrives_whole(bucket: Bucket) -> None:
    make_connector(bucket.url("out"), format="jsonl").write(large(20 * 2**20))
    (name,) = bucket.names()
    assert len(bucket.read(name)) == 20 * 2**20 + len('{"id":""}\n')


def test_a_missing_bucket_is_named(bucket: Bucket) -> None:
    error = failure(bucket.url().replace(bucket.name, "no-such-bucket"))
    assert (error.code, error.vendor_code) == (ErrorCode.CONFIGURATION, "NO_SUCH_BUCKET")
    assert "s3://no-such-bucket/state/people" in error.message


def test_a_secret_that_a_store_repeats_is_not_told(bucket: Bucket) -> None:
    said = b"The specified bucket does not exist"
    lie = (said, f"your secret is {SECRET}".ljust(len(said)).encode())
    with Proxy(bucket.endpoint, lie=lie) as proxy:
        error = failure(bucket.url(endpoint=proxy.endpoint).replace(bucket.name, "no-such-bucket"))
    assert "your secret is ***" in error.message


@contextmanager
def keys(*actions: str) -> Iterator[tuple[Bucket, dict[str, str]]]:
    """A bucket of a server that asks for rights, and the keys of a user who has these."""
    with object_server({"INITIAL_NO_AUTH_ACTION_COUNT": str(GRANTS)}) as server:
        bucket, iam = server.bucket(), server.client("iam")
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.create_user(UserName="user")
        iam.put_user_policy(UserName="user", PolicyName="rights", PolicyDocument=policy)
        key = iam.create_access_key(UserName="user")["AccessKey"]
        yield bucket, {"key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}


def test_missing_rights_and_wrong_keys_are_told_apart() -> None:
    with keys("s3:GetObject", "s3:ListBucket") as (bucket, reader):
        error = failure(bucket.url(**reader))
        assert (error.code, error.vendor_code, error.ambiguous) == (ErrorCode.PERMISSION, "ACCESS_DENIED", False)
        assert "Allow" in str(error.hint)
        assert reader["secret"] not in str(error)
        error = failure(bucket.url())
        assert (error.code, error.vendor_code) == (ErrorCode.AUTH, "INVALID_ACCESS_KEY_ID")
        error = failure(bucket.url(key=reader["key"], secret="another"))
        assert (error.code, error.vendor_code) == (ErrorCode.AUTH, "SIGNATURE_DOES_NOT_MATCH")
        assert reader["key"] not in str(error)


def test_who_may_only_write_hands_files_over() -> None:
    with keys("s3:PutObject") as (bucket, writer):
        connector = make_connector(bucket.url("out", **writer))
        connector.check()
        assert len(connector.write(PEOPLE)) == 2
        with pytest.raises(DestinationError) as caught:
            connector.objects()
        assert caught.value.code is ErrorCode.PERMISSION


@pytest.mark.long
def test_a_store_that_does_not_answer_has_taken_nothing(bucket: Bucket) -> None:
    error = failure(bucket.url(endpoint=f"127.0.0.1:{free_port()}"))
    assert (error.code, error.vendor_code) == (ErrorCode.DESTINATION_UNAVAILABLE, "NETWORK_CONNECTION")
    assert not error.ambiguous


@pytest.mark.long
def test_an_upload_that_is_cut_leaves_no_file(bucket: Bucket) -> None:
    with Proxy(bucket.endpoint, 24 * 2**20) as proxy:
        error = failure(bucket.url(endpoint=proxy.endpoint), large(64 * 2**20))
        assert error.code is ErrorCode.DESTINATION_UNAVAILABLE
    assert bucket.names() == set()


def test_an_upload_that_arrives_short_is_an_error(bucket: Bucket) -> None:
    lie = (b"Content-Length: 54321\r\n", b"Content-Length: 54320\r\n")
    batch = large(54_320 - len('{"id":""}\n'))
    with Proxy(bucket.endpoint, lie=lie) as proxy:
        error = failure(bucket.url(endpoint=proxy.endpoint), replace(batch, rows=[_longer(batch)]))
    assert "54320 bytes arrived of 54321" in error.message
    assert error.ambiguous


def _longer(batch: Batch) -> MadeRow:
    """A row with one byte more."""
    (document,) = batch.documents
    return MadeRow("1", {"id": 1}, {}, orjson.Fragment(document[:-2] + b'x"}'))


WRITING = """
import os, sys
import orjson
from file_readers import make_connector
from dagster_retl.model.rows import Batch, Operation
from dagster_retl.testing.rows import MadeRow

row = MadeRow("1", {"id": 1}, {}, orjson.Fragment(b'{"id":"' + os.urandom(32 * 2**20).hex().encode() + b'"}'))
make_connector(sys.argv[1], format="jsonl").write(Batch("people", Operation.UPSERT, [row], ("id",), "k", "run"))
"""


def test_a_process_killed_while_it_uploads_leaves_no_file(bucket: Bucket) -> None:
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with Proxy(bucket.endpoint, 24 * 2**20, stalls=True) as proxy:
        command: list[Any] = [sys.executable, "-c", WRITING, bucket.url("out", endpoint=proxy.endpoint)]
        with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE) as child:
            until = time.monotonic() + 120
            while not proxy.spent:
                assert child.poll() is None
                assert time.monotonic() < until
                time.sleep(0.01)
            child.send_signal(signal.SIGKILL)
            child.communicate()
    assert bucket.names() == set()
    (upload,) = bucket.uploads()
    assert upload.startswith("out/people/run=run/part-00000-")
