"""The fake Salesforce of this project in a process of its own, so that its work is not the client's.

python benchmarks/salesforce_org.py    # prints its address, and ends with its input
"""

from __future__ import annotations

import json
import sys

from dagster_retl.testing.fake_salesforce import FakeSalesforce


def main() -> None:
    """Say where the org is; at the end of the input, what it holds."""
    with FakeSalesforce(record=False, daily=10_000_000) as org:
        app = org.login.app
        print(json.dumps({"url": org.url, "app": [app.client_id, app.client_secret]}), flush=True)
        sys.stdin.read()
        records = list(org.org.records["Account"].values())
    right = sum(str(record["Name"]).endswith(f" {str(record['External_Id__c'])[2:]}") for record in records)
    print(json.dumps({"records": len(records), "right": right}), flush=True)


if __name__ == "__main__":
    main()
