"""What people see of a sync into Salesforce, from its first run to the last mended row.

With `RETL_SCREENSHOTS=docs/images` the pictures of the documentation are taken on the way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from programs import eventually
from story_shop import Shop
from test_ui import CHROMIUM, FLAGS

from dagster_retl.testing.fake_salesforce import FakeSalesforce

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.long]

REFUSED = ("A-0007", "A-0019", "A-0113")
REASON = "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST: Account Rating: bad value for restricted picklist field: Lukewarm"
YELLOW = "warning_outline"  # the sign of a check that only warns, as it is read out
PICTURES = os.environ.get("RETL_SCREENSHOTS")
PATIENCE = 120  # seconds: the machine may have other things to do


class Visitor:
    """Somebody who looks at the sync in Dagster's pages."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self._url = url

    def visit(self, path: str) -> None:
        self.page.goto(f"{self._url}/{path}")

    def sync(self, view: str = "overview", *, height: int = 1_000) -> None:
        self.page.set_viewport_size({"width": 1360, "height": height})
        self.visit(f"assets/retl/crm_accounts?view={view}")

    def sees(self, *texts: str) -> None:
        for text in texts:
            self.page.get_by_text(text).first.wait_for()

    def presses(self, name: str) -> None:
        self.page.get_by_text(name, exact=True).first.click()

    def row(self, name: str) -> Locator:
        """The row of a metadata table."""
        return self.page.get_by_role("row").filter(has=self.page.get_by_text(name, exact=True))

    def sees_metadata(self, **values: int) -> None:
        for name, value in values.items():
            self.row(f"retl/{name}").filter(has=self.page.get_by_text(str(value), exact=True)).first.wait_for()

    def photographs(self, name: str) -> None:
        """Take a picture for the documentation, if somebody asked for it."""
        if PICTURES is None:
            return
        self.page.mouse.move(0, 0)
        self.page.wait_for_timeout(3_000)  # until what glides and fades is at rest
        self.page.screenshot(path=Path(PICTURES) / f"{name}.png")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: chromium)")
    with FakeSalesforce() as salesforce:
        shop = Shop(tmp_path_factory.mktemp("shop"), salesforce)
        shop.rate(REFUSED, "Lukewarm")
        with shop.running():
            yield shop


@pytest.fixture
def visitor(shop: Shop) -> Iterator[Visitor]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE * 1_000)
        yield Visitor(page, shop.url)
        browser.close()


def test_a_sync_hangs_on_its_model_and_has_a_schedule(shop: Shop, visitor: Visitor) -> None:
    visitor.sync("lineage")
    visitor.presses("All")
    visitor.sees("stg_accounts", "dim_account", "dbt", "crm_accounts", "Salesforce")
    visitor.visit("automation")
    visitor.sees("crm_accounts", "At 15 minutes past the hour, every 4 hours", "retl_alerts")
    visitor.sync()
    visitor.sees("Every account with its rating, for the people who sell.", "Never materialized")


def test_a_refused_picklist_value_is_seen_told_and_mended(shop: Shop, visitor: Visitor) -> None:
    _first_run(visitor)
    _refusals_are_seen(visitor)
    [alert] = eventually("the alert", shop.alerts, seconds=PATIENCE)
    assert alert["title"] == "3 rows were not written to Salesforce: DESTINATION_VALIDATION"
    assert REASON in alert["message"]
    assert all(shop.account(account_id) is None for account_id in REFUSED)

    shop.rate(REFUSED, "Warm")
    shop.retl("dlq", "replay", "--sync", "crm_accounts")
    _all_is_well(visitor)
    assert {account["Rating"] for account in map(shop.account, REFUSED) if account} == {"Warm"}
    eventually("the good news", lambda: len(shop.alerts()) == 2, seconds=PATIENCE)
    assert shop.alerts()[-1]["title"] == "No dead letters are left for Salesforce: DESTINATION_VALIDATION"
    _another_run_plots(visitor)


def _first_run(visitor: Visitor) -> None:
    visitor.visit("asset-groups")
    visitor.presses("Materialize all")
    visitor.sees("Launched run")
    visitor.presses("View")
    visitor.sees("crm_accounts", "RUN_SUCCESS", "Success")


def _refusals_are_seen(visitor: Visitor) -> None:
    visitor.sync("lineage", height=560)
    visitor.presses("All")
    visitor.sees("1 / 2 Passed")
    visitor.photographs("lineage")
    visitor.sync()
    visitor.sees_metadata(rows_read=240, rows_written=237, rows_failed=3, dead_letters_open=3)
    visitor.photographs("overview")
    visitor.sync("checks", height=660)
    visitor.presses("failure_rate")
    visitor.sees("3 of 240 rows failed (1.25%); more than 5% is an error.", "Failed")
    visitor.page.get_by_label(YELLOW).first.wait_for()
    visitor.photographs("check")
    visitor.sync("events")
    for account_id in REFUSED:
        visitor.row(f'{{"External_Id__c": "{account_id}"}}').last.get_by_text(REASON).wait_for()
    visitor.photographs("refused-rows")


def _all_is_well(visitor: Visitor) -> None:
    visitor.sync()
    visitor.sees_metadata(rows_read=3, rows_written=3, rows_failed=0, dead_letters_open=0)
    visitor.sync("checks")
    visitor.presses("failure_rate")
    visitor.sees("0 of 3 rows failed (0%)", "Succeeded")
    assert visitor.page.get_by_text("Failed", exact=True).or_(visitor.page.get_by_label(YELLOW)).count() == 0


def _another_run_plots(visitor: Visitor) -> None:
    visitor.sync()
    visitor.presses("Materialize")
    visitor.sees_metadata(rows_read=240, rows_unchanged=240)
    visitor.presses("Plots")
    for name in ("rows_written", "rows_failed"):
        visitor.page.get_by_text(f"retl/{name}", exact=True).first.scroll_into_view_if_needed()
        assert visitor.page.locator("canvas").count() > 0
