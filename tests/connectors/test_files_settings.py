"""Settings that cannot be meant are refused before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from file_readers import make_connector
from pydantic import ValidationError

from dagster_retl.connectors.files_config import FilesConfig


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"format": "xlsx"}, "format"),
        ({"compression": "snappy"}, "'snappy' is for `format: parquet`"),
        ({"format": "jsonl", "compression": "snappy"}, "'snappy' is for `format: parquet`"),
        ({"format": "parquet", "delimiter": ";"}, "'delimiter' is for `format: csv`"),
        ({"format": "jsonl", "null_text": "NULL"}, "'null_text' is for `format: csv`"),
        ({"format": "jsonl", "escape_formulas": True}, "'escape_formulas' is for `format: csv`"),
        ({"delimiter": ""}, "one sign"),
        ({"delimiter": ",,"}, "one sign"),
        ({"delimiter": '"'}, "one sign"),
        ({"delimiter": "\n"}, "one sign"),
        ({"delimiter": "e"}, "one sign"),
        ({"delimiter": "-"}, "one sign"),
        ({"null_text": "a,b"}, "'null_text'"),
        ({"null_text": 'say "null"'}, "'null_text'"),
        ({"base_url": "https://example.com"}, "is for destinations over HTTP"),
        ({"proxy": "http://example.com"}, "is for destinations over HTTP"),
        ({"url": ""}, "url"),
        ({"url": "ftp://host/folder"}, "ftp://, which is not supported"),
        ({"url": "s3://bucket/x?regoin=eu"}, "unknown parameter 'regoin'"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        FilesConfig.model_validate({"url": str(tmp_path), **settings})


def test_a_url_that_is_refused_is_not_shown() -> None:
    with pytest.raises(ValidationError) as caught:
        FilesConfig.model_validate({"url": "s3://AKIAKEY:very%2Fsecret@bucket/x?regoin=eu"})
    assert "very" not in str(caught.value)


def test_a_folder_is_looked_for_beside_the_project(tmp_path: Path) -> None:
    config = FilesConfig.model_validate({"url": "out"}, context={"base": tmp_path})
    assert config.url.get_secret_value() == str(tmp_path / "out")
    store = FilesConfig.model_validate({"url": "s3://bucket/out"}, context={"base": tmp_path})
    assert store.url.get_secret_value() == "s3://bucket/out"


@pytest.mark.parametrize("mode", ["delete", "mirror"])
def test_removals_have_to_be_told(tmp_path: Path, mode: str) -> None:
    assert "operation_column: true" in str(make_connector(tmp_path).supports(mode))
    assert make_connector(tmp_path, operation_column=True).supports(mode) is None


@pytest.mark.parametrize("mode", ["upsert", "insert", "update"])
def test_other_modes_need_no_setting(tmp_path: Path, mode: str) -> None:
    assert make_connector(tmp_path).supports(mode) is None


def test_an_address_is_an_account_without_its_credentials(tmp_path: Path) -> None:
    assert make_connector(tmp_path).identity() == str(tmp_path)
    store = make_connector("s3://AKIAKEY:very%2Fsecret@bucket/a/b?region=eu-west-3")
    assert store.identity() == "s3://bucket/a/b"
    assert "very" not in repr(store.config) + str(store.config)
