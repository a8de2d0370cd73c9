"""State on an object store: what is written is whole, what is gone is told from what cannot be reached."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import pytest
from object_server import KEY, REGION, SECRET, Bucket, Proxy, object_server
from programs import free_port

from dagster_retl.errors import ConfigurationError, ErrorCode, RetlError, StateMissingError
from dagster_retl.store.files import Stored
from dagster_retl.store.state import State, generation_name, manifest_name

UUID = "0123456789abcdef"
LATER = timedelta(minutes=-10)
"""Older than this is what was written up to ten minutes from now."""


@pytest.fixture
def state(bucket: Bucket) -> Iterator[State]:
    with State.open(bucket.url()) as opened:
        yield opened


def parquet(path: Path) -> int:
    duckdb.connect().execute(f"COPY (SELECT range AS key FROM range(1000)) TO '{path}' (FORMAT parquet)").close()
    return 1000


def large(size: int) -> Callable[[Path], None]:
    def fill(path: Path) -> None:
        with path.open("wb") as file:
            for _ in range(size // 2**20):
                file.write(os.urandom(2**20))

    return fill


def hides_secrets(error: BaseException) -> None:
    """In its text and in that of everything that it was raised from."""
    told = "".join(traceback.format_exception(error)) + repr(error)
    for secret in (SECRET, quote(SECRET, safe=""), KEY):
        assert secret not in told


def test_a_written_file_is_read_back_on_another_machine(bucket: Bucket, state: State, tmp_path: Path) -> None:
    stored = state.write(generation_name(UUID, "s", 7), parquet)
    assert stored.rows == 1000
    assert bucket.names() == {f"state/{stored.name}"}
    spill = tmp_path / "spill"
    with State.open(bucket.url(), spill=str(spill)) as reader:
        path = reader.local_path(stored.name, stored.checksum)
        assert duckdb.connect().execute(f"SELECT count(*) FROM '{path}'").fetchone() == (1000,)
        assert path.is_relative_to(spill)
    assert list(spill.iterdir()) == []


def test_a_large_file_goes_in_parts_and_comes_back_whole(bucket: Bucket, state: State) -> None:
    stored = state.write(generation_name(UUID, "s", 1), large(20 * 2**20))
    assert bucket.uploads() == []
    with State.open(bucket.url()) as reader:
        assert reader.local_path(stored.name, stored.checksum).stat().st_size == 20 * 2**20


def test_credentials_and_endpoint_come_from_the_environment(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{bucket.endpoint}")
    monkeypatch.setenv("AWS_REGION", REGION)
    with State.open(f"s3://{bucket.name}/a/b%20c/") as state:
        stored = state.write("s/x", parquet)
        assert bucket.names() == {"a/b c/s/x"}
    with State.open(f"s3://{bucket.name}/a/b%20c") as state:
        assert state.local_path("s/x", stored.checksum).is_file()


def test_a_name_is_never_used_twice(bucket: Bucket, state: State) -> None:
    stored = state.write("s/x", parquet)
    with State.open(bucket.url()) as other, pytest.raises(RetlError, match="cannot be written: it exists already"):
        other.write("s/x", lambda path: path.write_bytes(b"other") and None)
    with State.open(bucket.url()) as reader:
        assert reader.local_path("s/x", stored.checksum).stat().st_size > 5


def test_a_writer_that_fails_leaves_nothing(bucket: Bucket, state: State) -> None:
    def broken(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        state.write("s/x", broken)
    assert bucket.names() == set()
    assert [path for path in state.folder.rglob("*") if path.is_file()] == []


def gone(bucket: Bucket, key: str) -> None:
    bucket.delete(key)


def cut_short(bucket: Bucket, key: str) -> None:
    """As a store shows it that lets people see part of an upload."""
    bucket.overwrite(key, bucket.read(key)[:-100])


def changed(bucket: Bucket, key: str) -> None:
    content = bytearray(bucket.read(key))
    content[100] ^= 1
    bucket.overwrite(key, bytes(content))


@pytest.mark.parametrize(
    ("harm", "problem"), [(gone, "is not there"), (cut_short, "is not what"), (changed, "is not what")]
)
def test_damage_and_loss_are_named_with_the_way_out(
    bucket: Bucket, state: State, harm: Callable[[Bucket, str], None], problem: str
) -> None:
    stored = state.write(generation_name(UUID, "s", 1), parquet)
    harm(bucket, f"state/{stored.name}")
    with State.open(bucket.url()) as reader:
        for _ in range(2):
            with pytest.raises(StateMissingError, match=problem) as caught:
                reader.local_path(stored.name, stored.checksum)
            assert f"s3://{bucket.name}/state/{stored.name}" in caught.value.message
            assert "--reset" in str(caught.value)
            hides_secrets(caught.value)


def test_a_copy_that_somebody_damaged_is_fetched_anew(bucket: Bucket, state: State) -> None:
    stored = state.write(generation_name(UUID, "s", 1), parquet)
    path = state.local_path(stored.name, stored.checksum)
    path.write_bytes(b"damaged")
    assert state.local_path(stored.name, stored.checksum).read_bytes() == bucket.read(f"state/{stored.name}")
    with pytest.raises(StateMissingError):
        state.local_path(stored.name, stored.checksum.replace("blake2b:", "blake2b:0"))


def test_threads_that_want_one_file_fetch_it_once(bucket: Bucket, state: State) -> None:
    stored = state.write("s/x", large(8 * 2**20))
    with Proxy(bucket.endpoint) as proxy, State.open(bucket.url(endpoint=proxy.endpoint)) as reader:
        with ThreadPoolExecutor(8) as pool:
            paths = list(pool.map(lambda _: reader.local_path(stored.name, stored.checksum), range(16)))
        assert len(set(paths)) == 1
        assert proxy.returned < 9 * 2**20


def test_a_writer_has_its_own_copy(bucket: Bucket) -> None:
    with Proxy(bucket.endpoint) as proxy, State.open(bucket.url(endpoint=proxy.endpoint)) as state:
        stored = state.write("s/x", large(4 * 2**20))
        state.local_path(stored.name, stored.checksum)
        assert proxy.returned < 2**20


def test_few_copies_stay(bucket: Bucket, state: State) -> None:
    written = [state.write(generation_name(UUID, "s", token), parquet) for token in range(7)]
    manifest = state.write(manifest_name(UUID, "s", 1), parquet)
    with State.open(bucket.url()) as reader:
        for each in [manifest, *written]:
            reader.local_path(each.name, each.checksum)
        copies = {f"s/{path.name}" for path in (reader.folder / "s").iterdir()}
        assert copies == {manifest.name, *(each.name for each in written[-4:])}
    assert len(bucket.names()) == 8


# What cannot be reached


def attempts(state: State) -> Iterator[RetlError]:
    """The errors of everything that one can do."""
    does: list[Callable[[], object]] = [
        lambda: state.local_path("s/x", "blake2b:0:0"),
        lambda: state.write("s/y", parquet),
        lambda: state.collect("s", set(), store_uuid=UUID),
    ]
    for do in does:
        with pytest.raises(RetlError) as caught:
            do()
        yield caught.value


def test_a_bucket_that_is_not_there_is_not_an_empty_one(bucket: Bucket) -> None:
    nowhere = bucket.url().replace(bucket.name, "no-such-bucket")
    with State.open(nowhere) as state:
        for do in (lambda: state.local_path("s/x", "blake2b:0:0"), lambda: state.write("s/y", parquet)):
            with pytest.raises(ConfigurationError, match="there is no bucket 'no-such-bucket'") as caught:
                do()
            hides_secrets(caught.value)


@pytest.mark.long
def test_a_store_that_does_not_answer_is_not_an_empty_one(bucket: Bucket) -> None:
    with State.open(bucket.url(endpoint=f"127.0.0.1:{free_port()}")) as state:
        for error in attempts(state):
            assert error.code is ErrorCode.STATE_UNAVAILABLE
            assert not isinstance(error, StateMissingError)
            assert f"s3://{bucket.name}/state cannot be" in error.message
            assert error.hint is not None
            assert "endpoint" in error.hint
            hides_secrets(error)


def test_a_service_that_is_busy_is_asked_again(bucket: Bucket) -> None:
    with Proxy(bucket.endpoint, busy=2) as proxy, State.open(bucket.url(endpoint=proxy.endpoint)) as state:
        stored = state.write("s/x", parquet)
        assert proxy.busy == 0
    with Proxy(bucket.endpoint, busy=2) as proxy, State.open(bucket.url(endpoint=proxy.endpoint)) as state:
        assert state.local_path("s/x", stored.checksum).is_file()
        assert proxy.busy == 0


GRANTS = 4  # requests before the server begins to ask for rights: a bucket, a user, its policy, its key


def test_credentials_that_are_refused_are_not_taken_for_a_loss() -> None:
    with object_server({"INITIAL_NO_AUTH_ACTION_COUNT": str(GRANTS)}) as server:
        bucket, iam = server.bucket(), server.client("iam")
        reading = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [reading]})
        iam.create_user(UserName="reader")
        iam.put_user_policy(UserName="reader", PolicyName="reading", PolicyDocument=policy)
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        for wrong in (bucket.url(), bucket.url(key=key["AccessKeyId"]), bucket.url(secret=key["SecretAccessKey"])):
            with State.open(wrong) as state:
                for error in attempts(state):
                    assert error.code is ErrorCode.STATE_UNAVAILABLE
                    assert "credentials" in str(error.hint)
                    hides_secrets(error)
                    assert key["SecretAccessKey"] not in str(error)
        with State.open(bucket.url(key=key["AccessKeyId"], secret=key["SecretAccessKey"])) as state:
            with pytest.raises(StateMissingError, match="is not there"):
                state.local_path("s/x", "blake2b:0:0")
            with pytest.raises(RetlError, match=r"cannot be written.*ACCESS_DENIED"):
                state.write("s/y", parquet)


@pytest.mark.parametrize(
    "url",
    [
        f"s3://{KEY}:{SECRET}@bucket/state",
        f"s3://{KEY}:{quote(SECRET, safe='')}@/state",
        f"s3://bucket/state?access_key={KEY}&secret_key={quote(SECRET, safe='')}",
        f"gs://user:{quote(SECRET, safe='')}@bucket/with a blank",
        f"gs://bucket/state?token={quote(SECRET, safe='')}",
        f"abfs://container:{quote(SECRET, safe='')}@account/state",
        f"abfss://container@account.dfs.core.windows.net/state?account_key={quote(SECRET, safe='')}",
        f"s3://[{KEY}:{SECRET}@bucket/state",
        f"ftp://{KEY}:{quote(SECRET, safe='')}@bucket/state",
    ],
)
def test_urls_that_are_wrong_are_not_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        State.open(url)
    hides_secrets(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"s3://{KEY}:{quote(SECRET, safe='')}@bucket/state?region=eu-west-3&external_id=abc",
        "gs://anonymous@bucket/state",
        f"abfs://container:{quote(SECRET, safe='')}@account.dfs.core.windows.net/state",
        "abfss://container@account.dfs.core.windows.net/state?client_id=abc",
    ],
)
def test_urls_of_each_vendor_open_without_asking_anybody(url: str) -> None:
    with State.open(url) as state:
        assert SECRET not in repr(vars(state)) + repr(vars(state._files))


# What the guide says


def of_guide(word: str) -> Any:
    """The JSON document of the guide that has this word in it."""
    text = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
    (found,) = [block for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL) if word in block]
    return json.loads(found)


def test_the_rights_of_the_guide_are_enough() -> None:
    with object_server({"INITIAL_NO_AUTH_ACTION_COUNT": str(GRANTS)}) as server:
        bucket, iam = server.bucket("example-retl"), server.client("iam")
        iam.create_user(UserName="retl")
        iam.put_user_policy(UserName="retl", PolicyName="state", PolicyDocument=json.dumps(of_guide("s3:PutObject")))
        key = iam.create_access_key(UserName="retl")["AccessKey"]
        url = bucket.url(key=key["AccessKeyId"], secret=key["SecretAccessKey"])
        with State.open(url) as state:
            stored = state.write(generation_name(UUID, "s", 1), large(12 * 2**20))
            state.write(generation_name(UUID, "s", 2), parquet)
        with State.open(url) as state:
            state.local_path(stored.name, stored.checksum)
            assert state.collect("s", set(), LATER, store_uuid=UUID, generations=1) == [stored.name]
        with State.open(url) as state, pytest.raises(StateMissingError):
            state.local_path(stored.name, stored.checksum)
        with (
            State.open(url.replace("/state?", "/elsewhere?")) as state,
            pytest.raises(RetlError, match="ACCESS_DENIED"),
        ):
            state.write(generation_name(UUID, "s", 1), parquet)


def test_the_lifecycle_rule_of_the_guide_is_one(bucket: Bucket) -> None:
    rule = of_guide("AbortIncompleteMultipartUpload")
    bucket.client.put_bucket_lifecycle_configuration(Bucket=bucket.name, LifecycleConfiguration=rule)
    (known,) = bucket.client.get_bucket_lifecycle_configuration(Bucket=bucket.name)["Rules"]
    assert known["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 2}


# Uploads that do not end

WRITING = """
import os, sys
from dagster_retl.store.state import State

def large(path):
    with path.open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(2**20))

State.open(sys.argv[1], spill=sys.argv[2]).write(sys.argv[3], large)
"""


def test_a_process_killed_while_it_uploads_leaves_no_file(bucket: Bucket, tmp_path: Path) -> None:
    name = generation_name(UUID, "s", 1)
    with Proxy(bucket.endpoint, 24 * 2**20, stalls=True) as proxy:
        command = [sys.executable, "-c", WRITING, bucket.url(endpoint=proxy.endpoint), str(tmp_path), name]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as child:
            until = time.monotonic() + 120
            while not proxy.spent:
                assert child.poll() is None
                assert time.monotonic() < until
                time.sleep(0.01)
            child.send_signal(signal.SIGKILL)
            child.communicate()
    assert bucket.names() == set()
    assert bucket.uploads() == [f"state/{name}"]  # what the lifecycle rule of the guide removes
    with State.open(bucket.url()) as reader:
        with pytest.raises(StateMissingError):
            reader.local_path(name, "blake2b:0:0")
        assert reader.collect("s", set(), store_uuid=UUID) == []


@pytest.mark.long
def test_an_upload_that_is_cut_leaves_no_file(bucket: Bucket) -> None:
    name = generation_name(UUID, "s", 1)
    with (
        Proxy(bucket.endpoint, 24 * 2**20) as proxy,
        State.open(bucket.url(endpoint=proxy.endpoint)) as state,
    ):
        with pytest.raises(RetlError, match="cannot be written") as caught:
            state.write(name, large(64 * 2**20))
        assert caught.value.code is ErrorCode.STATE_UNAVAILABLE
        hides_secrets(caught.value)
        assert not (state.folder / name).exists()
    assert bucket.names() == set()
    with State.open(bucket.url()) as other:
        assert other.write(name, parquet).rows == 1000


def test_an_upload_that_arrives_short_is_an_error(bucket: Bucket) -> None:
    lie = (b"Content-Length: 54321\r\n", b"Content-Length: 54320\r\n")
    with Proxy(bucket.endpoint, lie=lie) as proxy, State.open(bucket.url(endpoint=proxy.endpoint)) as state:
        with pytest.raises(RetlError, match="54320 bytes arrived of 54321"):
            state.write("s/x", lambda path: path.write_bytes(os.urandom(54321)) and None)
        assert not (state.folder / "s/x").exists()


# What nobody needs


def write(state: State, *names: str) -> list[str]:
    return [state.write(name, parquet).name for name in names]


def test_only_files_that_nobody_names_go(bucket: Bucket, state: State) -> None:
    named, first, second, third, fourth = write(
        state, *(generation_name(UUID, "s", token) for token in (1, 2, 3, 9, 10))
    )
    manifest, kept_manifest = write(state, manifest_name(UUID, "s", 10), manifest_name(UUID, "s", 10))
    foreign, other_sync, notes = write(
        state, generation_name("fedcba", "s", 1), generation_name(UUID, "t", 1), "s/notes.txt"
    )
    keep = {named, kept_manifest}
    assert state.collect("s", keep, store_uuid=UUID) == []
    assert sorted(state.collect("s", keep, LATER, store_uuid=UUID)) == sorted([first, second, manifest])
    stay = {named, third, fourth, kept_manifest, foreign, other_sync, notes}
    assert bucket.names("state/") == {f"state/{name}" for name in stay}
    assert state.collect("never", set(), store_uuid=UUID) == []


def test_two_that_collect_at_once_do_not_disturb_each_other(bucket: Bucket, state: State) -> None:
    names = write(state, *(generation_name(UUID, "s", token) for token in range(12)))
    with State.open(bucket.url()) as other, ThreadPoolExecutor(2) as pool:
        both = [pool.submit(each.collect, "s", set(), LATER, store_uuid=UUID) for each in (state, other)]
        removed = {name for each in both for name in each.result()}
    assert removed == set(names[:-2])
    assert bucket.names() == {f"state/{name}" for name in names[-2:]}


def test_stores_that_share_a_prefix_leave_each_others_files_alone(bucket: Bucket) -> None:
    stores = {uuid: State.open(bucket.url()) for uuid in ("aaaa", "bbbb")}
    kept: dict[str, Stored] = {}
    for token in range(4):
        for uuid, state in stores.items():
            kept[uuid] = state.write(generation_name(uuid, "s", token), parquet)
            state.collect("s", {kept[uuid].name}, LATER, store_uuid=uuid, generations=1)
    for state in stores.values():
        state.close()
    assert bucket.names() == {f"state/{each.name}" for each in kept.values()}
    with State.open(bucket.url()) as reader:
        for each in kept.values():
            reader.local_path(each.name, each.checksum)
