"""Settings of connectors that hand files over: what is in a file, and what it is called."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from dagster_retl.connectors.base import ConnectorConfig
from dagster_retl.connectors.files_names import USUAL_NAME, check_pattern
from dagster_retl.errors import ConfigurationError
from dagster_retl.model.locations import resolve_path

if TYPE_CHECKING:
    from dagster_retl.model.object_urls import ObjectLocation

Format = Literal["csv", "jsonl", "parquet"]
Compression = Literal["none", "gzip", "zstd", "snappy"]

_OF_CSV = ("delimiter", "null_text", "escape_formulas")
_SUFFIXES: dict[Compression, str] = {"none": "", "gzip": ".gz", "zstd": ".zst"}


class FileSettings(ConnectorConfig):
    """Files of rows, one for each batch."""

    format: Format = "csv"
    """What a file is."""
    compression: Compression | None = None
    """`none`, `gzip` or `zstd`; in Parquet also `snappy`. Unset: `snappy` in Parquet, `none` elsewhere."""
    file_name: str = USUAL_NAME
    """Name of a file below its object's folder; may have `{run_id}`, `{number}`, `{key}` and `{extension}`."""
    operation_column: bool = False
    """Files begin with a column `_operation`: upsert, insert, update or delete; `delete` and `mirror` need it."""
    delimiter: str = ","
    """What separates the columns of CSV; a tab is `"\\t"`."""
    null_text: str = ""
    """What CSV has for a null, without quotes; text that is the same is quoted."""
    escape_formulas: bool = False
    """Text in CSV that a spreadsheet would take for a formula gets an apostrophe in front."""

    @field_validator("base_url", "proxy", "ca_file")
    @classmethod
    def _of_http(cls, value: object, info: ValidationInfo) -> None:
        if value is not None:
            raise ValueError(f"{info.field_name!r} is for destinations over HTTP")

    @field_validator("file_name")
    @classmethod
    def _unique(cls, value: str) -> str:
        return check_pattern(value)

    @field_validator("delimiter")
    @classmethod
    def _one_sign(cls, value: str) -> str:
        if not re.fullmatch(r"[\t!#$%&'()*,/:;<=>?@\[\]^_`{|}~]", value):
            raise ValueError("is not one sign that can separate columns, such as ',', ';', '|' or a tab")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        set_for_csv = [name for name in _OF_CSV if name in self.model_fields_set]
        if self.format != "csv" and set_for_csv:
            raise ValueError(f"{set_for_csv[0]!r} is for `format: csv`")
        if self.format != "parquet" and self.compression == "snappy":
            raise ValueError("'snappy' is for `format: parquet`; use gzip or zstd")
        if any(sign in self.null_text for sign in (self.delimiter, '"', "\r", "\n")):
            raise ValueError("'null_text' has a quote, a new line or the delimiter in it")
        return self

    @property
    def codec(self) -> Compression:
        """The compression, where none is configured the usual one."""
        return self.compression or ("snappy" if self.format == "parquet" else "none")

    @property
    def extension(self) -> str:
        """What names of files end with, without the first dot."""
        return self.format if self.format == "parquet" else f"{self.format}{_SUFFIXES[self.codec]}"


class FilesConfig(FileSettings):
    """A folder of this machine, or a prefix on an object store."""

    url: SecretStr = Field(min_length=1)
    """Folder, or URL of S3 (`s3://bucket/prefix`), Google Cloud Storage (`gs://`) or Azure (`abfs://`)."""

    @field_validator("url")
    @classmethod
    def _known(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        """A folder is looked for beside retl.yaml, the `base` of the validation's context."""
        text = value.get_secret_value()
        try:
            _locate(text)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        base = (info.context or {}).get("base")
        return value if base is None else SecretStr(resolve_path(text, base))

    def location(self) -> ObjectLocation | None:
        """Where on an object store; None: in a folder of this machine."""
        return _locate(self.url.get_secret_value())


def _locate(url: str) -> ObjectLocation | None:
    if "://" not in url:
        return None
    from dagster_retl.model.object_urls import locate  # noqa: PLC0415 - its libraries take long to load

    return locate(url, setting="url")
