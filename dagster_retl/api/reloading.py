"""Having Dagster read the definitions anew after the list of syncs changed."""

from __future__ import annotations

import logging
import threading

from dagster_retl.webserver import Webserver, WebserverError

_LOG = logging.getLogger(__name__)


class Reloader:
    """Reloads the code locations of a project. Changes that come while it does share the next reload."""

    def __init__(self, webserver: Webserver, project: str) -> None:
        self._webserver = webserver
        self._project = project
        self._counting = threading.Lock()
        self._reloading = threading.Lock()
        self._changes = 0
        self._seen = 0
        self._well = True

    def reload(self) -> bool:
        """Whether Dagster knows, when this returns, what changed before it was called."""
        with self._counting:
            self._changes += 1
            mine = self._changes
        with self._reloading:
            if self._seen < mine:
                self._reload()
            return self._well

    def _reload(self) -> None:
        with self._counting:
            begun = self._changes
        try:
            self._webserver.reload(self._project)
        except WebserverError as error:
            _LOG.warning("definitions are stale: %s", error)
            self._well = False
        else:
            self._well = True
        self._seen = begun
