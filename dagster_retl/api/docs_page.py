"""The documentation page: Swagger UI, served from the package `fastapi-swagger`, so that it works without a network.

https://github.com/dantetemplar/fastapi-swagger
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from dagster_retl.api.problems import ApiError

_ASSETS: Mapping[str, str] = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
}
_ICON = "data:,"  # none: the page asks nobody for one


def docs_page(base: str) -> HTMLResponse:
    """The page, for the API at this path."""
    return get_swagger_ui_html(
        openapi_url=f"{base}/openapi.json",
        title="dagster_retl",
        swagger_js_url=f"{base}/docs/swagger-ui-bundle.js",
        swagger_css_url=f"{base}/docs/swagger-ui.css",
        swagger_favicon_url=_ICON,
        swagger_ui_parameters={"docExpansion": "list", "displayRequestDuration": True, "tryItOutEnabled": True},
    )


def asset(name: str) -> Response:
    """A file that the page needs. Raises `ApiError` for others."""
    kind = _ASSETS.get(name)
    if kind is None:
        raise ApiError(404, f"there is no {name[:100]!r} here")
    content = files("fastapi_swagger").joinpath("resources", name).read_bytes()
    return Response(content, media_type=kind, headers={"Cache-Control": "public, max-age=86400"})
