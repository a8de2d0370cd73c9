"""Connectors by name; each one that is installed keeps the contract."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from dagster_retl.connectors.base import CONNECTOR_API, AnyConnector, ConnectorConfig
from dagster_retl.connectors.http import HttpConnector
from dagster_retl.connectors.registry import connector_class, connector_names, require_current
from dagster_retl.errors import ConfigurationError, ErrorCode
from dagster_retl.testing.contract import ConnectorContract


def _contract_classes() -> list[type[ConnectorContract]]:
    """The contract classes of the test modules in this folder."""
    modules = [importlib.import_module(path.stem) for path in sorted(Path(__file__).parent.glob("test_*.py"))]
    things = [thing for module in modules for name, thing in vars(module).items() if name.startswith("Test")]
    return [thing for thing in things if isinstance(thing, type) and issubclass(thing, ConnectorContract)]


def test_the_connectors_of_this_package_are_registered() -> None:
    assert {"http", "sql"} <= set(connector_names()), "the package is not installed: pip install -e ."


@pytest.mark.parametrize("name", connector_names())
def test_a_registered_connector_is_one(name: str) -> None:
    connector = connector_class(name)
    assert issubclass(connector, AnyConnector)
    assert issubclass(connector.Config, ConnectorConfig)
    assert connector.spec.name == name


@pytest.mark.parametrize("name", connector_names())
def test_a_registered_connector_has_a_contract_class(name: str) -> None:
    tested = {contract.connector_type for contract in _contract_classes()}
    assert connector_class(name) in tested, f"no class in {Path(__file__).parent.name} tests the contract of {name!r}"


def test_an_unknown_name_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError) as caught:
        connector_class("htpp")
    assert caught.value.code is ErrorCode.CONFIGURATION
    assert caught.value.hint == "Did you mean 'http'?"


def test_a_connector_for_another_version_of_the_interface_says_so() -> None:
    class OfTomorrow(HttpConnector):
        connector_api = CONNECTOR_API + 1

    require_current(HttpConnector)
    with pytest.raises(ConfigurationError, match="was written for version") as caught:
        require_current(OfTomorrow)
    assert caught.value.hint


def test_a_strange_name_is_answered_with_all_names() -> None:
    with pytest.raises(ConfigurationError) as caught:
        connector_class("carrier-pigeon")
    assert "http" in str(caught.value)
    assert "sql" in str(caught.value)
