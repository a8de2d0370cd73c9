"""Acme, an imaginary vendor, as a destination of dagster_retl."""

from acme_connector.connector import AcmeConnector

__all__ = ["AcmeConnector"]
