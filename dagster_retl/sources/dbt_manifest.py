"""dbt models by name, as dbt's manifest knows them: the relation to read, and what Dagster calls the asset.

https://docs.getdbt.com/reference/artifacts/manifest-json
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from dagster_retl.errors import ConfigurationError
from dagster_retl.model.mistakes import did_you_mean

_KINDS = frozenset({"model", "seed", "snapshot"})


@dataclass(frozen=True, slots=True)
class DbtModel:
    """A model, seed or snapshot. relation: its table, quoted as the adapter does; None: it has none (ephemeral).

    asset_key: what dagster-dbt calls its asset, unless a translator says otherwise.
    """

    package: str
    name: str
    relation: str | None
    asset_key: tuple[str, ...]


def dbt_model(reference: str, base: Path) -> DbtModel:
    """The model of a name, or `package.name`.

    base: the folder of retl.yaml; the dbt project is where `DBT_PROJECT_DIR` says, or there, or in a
    folder of it. Raises `ConfigurationError` without a manifest, without such a model, and for several.
    """
    manifest = manifest_path(base)
    models = _models(manifest, manifest.stat().st_mtime_ns)
    found = [model for model in models if reference in (model.name, f"{model.package}.{model.name}")]
    if not found:
        raise ConfigurationError(
            f"`dbt:{reference}`: {manifest} has no such model",
            hint=did_you_mean(reference, [each.name for each in models]),
        )
    if len(found) > 1:
        raise ConfigurationError(
            f"`dbt:{reference}` could be a model of any of the packages {', '.join(each.package for each in found)}",
            hint=f"Write `dbt:{found[0].package}.{reference}`.",
        )
    return found[0]


def manifest_path(base: Path) -> Path:
    """The manifest of the dbt project. Raises `ConfigurationError`."""
    manifest = _project_folder(base) / os.environ.get("DBT_TARGET_PATH", "target") / "manifest.json"
    if not manifest.is_file():
        raise ConfigurationError(f"there is no {manifest}", hint="`dbt parse` writes it.")
    return manifest


def _project_folder(base: Path) -> Path:
    named = os.environ.get("DBT_PROJECT_DIR")
    if named:
        return base / named
    found = [path.parent for pattern in ("dbt_project.yml", "*/dbt_project.yml") for path in sorted(base.glob(pattern))]
    if len(found) == 1:
        return found[0]
    seen = "several dbt projects" if found else "no dbt_project.yml"
    raise ConfigurationError(f"{base} holds {seen}, in itself and its folders", hint="Set DBT_PROJECT_DIR to the one.")


@lru_cache(maxsize=8)
def _models(manifest: Path, written: int) -> tuple[DbtModel, ...]:
    """written: when; a manifest that was written anew is read anew."""
    try:
        nodes = orjson.loads(manifest.read_bytes())["nodes"]
    except (orjson.JSONDecodeError, KeyError) as error:
        raise ConfigurationError(f"{manifest} is no manifest of dbt", hint="`dbt parse` writes it.") from error
    return tuple(_model(node) for node in nodes.values() if node["resource_type"] in _KINDS)


def _model(node: Mapping[str, Any]) -> DbtModel:
    return DbtModel(node["package_name"], node["name"], node.get("relation_name"), _asset_key(node))


def _asset_key(node: Mapping[str, Any]) -> tuple[str, ...]:
    config = node.get("config", {})
    meta = config.get("meta") or node.get("meta") or {}
    named = meta.get("dagster", {}).get("asset_key")
    if named:
        return tuple(named)
    schema = config.get("schema")
    return (schema, node["name"]) if schema else (node["name"],)
