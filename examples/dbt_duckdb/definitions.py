"""dbt models and the syncs that read them, in one code location: `dagster dev -f definitions.py`."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from dagster_dbt import DbtCliResource, DbtProject, dbt_assets

from dagster_retl import Project, build_definitions, link_upstreams

HERE = Path(__file__).parent

shop = DbtProject(HERE / "dbt", profiles_dir=HERE / "dbt")
if not shop.manifest_path.exists():
    shop.preparer.prepare(shop)  # `dbt parse`; a deployment does it while the image is built


@dbt_assets(manifest=shop.manifest_path)
def shop_models(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[object]:
    """Seeds and models; `dbt build` tests them as well."""
    yield from dbt.cli(["build"], context=context).stream()


# Last of all: the syncs hang on the models whose tables they read. Dagster takes one `Definitions` of a module.
defs = link_upstreams(
    dg.Definitions.merge(
        dg.Definitions(assets=[shop_models], resources={"dbt": DbtCliResource(shop)}),
        build_definitions(Project.load(HERE / "retl.yaml")),
    )
)
