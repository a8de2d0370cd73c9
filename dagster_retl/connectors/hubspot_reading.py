"""What HubSpot holds now, for the rows of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dagster_retl.connectors.base import Exchange
from dagster_retl.connectors.hubspot_config import ASSOCIATION
from dagster_retl.connectors.hubspot_inputs import key_text
from dagster_retl.connectors.hubspot_lookup import RecordFinder, index
from dagster_retl.model.rows import Batch


def read_values(finder: RecordFinder, batch: Batch, fields: Sequence[str]) -> Exchange[Mapping[str, Mapping[str, Any]]]:
    """Row key → property → text, or null where it is empty. Associations are not read.

    Of several records with the same value of a key that is not unique, none is what the row stands for.
    """
    if len(batch.key_fields) != 1:
        return {}
    (key,) = batch.key_fields
    texts = {row.key: key_text(row, key) for row in batch.rows}
    wanted = list(dict.fromkeys(texts.values()))
    names = [name for name in fields if not name.startswith(ASSOCIATION)]
    found = index((yield from finder.records(batch.object_name, key, wanted, names)), key, wanted)
    records = {row_key: found[text][0] for row_key, text in texts.items() if len(found.get(text, ())) == 1}
    return {row_key: {name: each["properties"].get(name) for name in names} for row_key, each in records.items()}
