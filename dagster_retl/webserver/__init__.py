"""Dagster's webserver, for whoever talks to Dagster without importing it."""

from __future__ import annotations

from dagster_retl.webserver.client import Webserver, WebserverError, is_over
from dagster_retl.webserver.holder import Holder

__all__ = ["Holder", "Webserver", "WebserverError", "is_over"]
