"""OHIF under `/ohif/`: a prepared copy (see `dicomweb.viewer_install`) on the same origin, so no CORS preflights."""

from __future__ import annotations

import mimetypes
import re
from functools import lru_cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from bridge.errors import CairnError, Unauthenticated
from dicomweb import viewer_watch
from dicomweb.exchange import Door, Exchange, headers_of, refusal
from dicomweb.login import login_needed
from dicomweb.responses import digest_of, is_fresh, whole
from dicomweb.viewer_install import STAMP, VERSION

PREFIX = "/ohif/"
_HASHED = re.compile(r"(\.[0-9a-f]{16}\.js|(^|/)[0-9a-f]{16}\.[a-z0-9]+)\Z")
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".woff2": "font/woff2"}
# SharedArrayBuffer (volume rendering) needs cross-origin isolation; URLs hold study UIDs, so they are not passed on.
_HEADERS = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "content-security-policy": "frame-ancestors 'self'",
}

APP_CONFIG = """window.config = {
  name: 'cairn',
  routerBasename: '/ohif',
  extensions: [],
  modes: [],
  customizationService: {},
  showStudyList: true,
  showErrorDetails: 'production',
  maxNumberOfWebWorkers: 3,
  maxNumRequests: { interaction: 100, thumbnail: 5, prefetch: 25 },
  investigationalUseDialog: { option: 'configure', days: 365 },
  showWarningMessageForCrossOrigin: true,
  showCPUFallbackMessage: true,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  groupEnabledModesFirst: true,
  defaultDataSourceName: 'cairn',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'cairn',
      configuration: {
        friendlyName: 'Cairn',
        name: 'cairn',
        qidoRoot: '/dicom-web',
        wadoRoot: '/dicom-web',
        stowRoot: '/dicom-web',
        wadoUriRoot: '/wado',
        qidoSupportsIncludeField: true,
        supportsFuzzyMatching: true,
        supportsWildcard: true,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        singlepart: 'bulkdata,video',
        bulkDataURI: { enabled: true },
        omitQuotationForMultipartRequest: true,
      },
    },
  ],
};
"""

_MISSING = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Cairn: no viewer yet</title>
<body style="font-family:sans-serif;max-width:40em;margin:4em auto;line-height:1.5"><h1>The viewer is not installed</h1>
<p>OHIF {VERSION} is not part of Cairn; it is fetched once from the npm registry (49 MB) and prepared for /ohif/:</p>
<pre>python -m dicomweb.viewer_install CAIRN_HOME/viewer</pre>
<p>CAIRN_HOME is the data directory of this node; web.viewer_dir names another place. DICOMweb works without it.</p>
</body></html>
"""


def view(door: Door, request: Request) -> Response:
    """`GET /ohif/...`: a file of the viewer; a path of the viewer's own router gives its page; blocking."""
    headers = headers_of(request.scope["headers"])
    if request.path_params["path"] == viewer_watch.HELD:
        return viewer_watch.held(door, request)
    try:
        exchange = door.open(request, None)
    except Unauthenticated as error:
        return login_needed() if "text/html" in headers.get("accept", "") else refusal(error, headers)
    except CairnError as error:
        return refusal(error, headers)
    if exchange.path.get("path") == viewer_watch.ENDED:
        return viewer_watch.ended()
    root = directory(exchange)
    if root is None:
        return HTMLResponse(_MISSING, 503, {"cache-control": "no-store"})
    name = exchange.path.get("path", "")
    if name == "app-config.js":
        return _config(exchange)
    return _file(exchange, root, name if name in _names(root) else "index.html")


def directory(exchange: Exchange) -> Path | None:
    """Where a finished copy of the viewer lies: web.viewer_dir, else CAIRN_HOME/viewer, else .cache/viewer."""
    settings = exchange.node.settings
    chosen = settings.web.viewer_dir
    candidates = [chosen] if chosen is not None else [settings.home / "viewer", Path(".cache/viewer")]
    return next((root for root in candidates if (root / STAMP).is_file()), None)


@lru_cache(maxsize=4)
def _names(root: Path) -> frozenset[str]:
    """Every file of the viewer by its path: a request can name these and nothing else."""
    return frozenset(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())


def _config(exchange: Exchange) -> Response:
    script = APP_CONFIG + viewer_watch.SCRIPT
    tag = digest_of(script)
    headers = {**_HEADERS, "etag": f'"{tag}"', "cache-control": "private, no-cache"}
    if is_fresh(exchange, tag):
        return Response(status_code=304, headers=headers)
    return whole(exchange, script.encode(), headers, "text/javascript; charset=utf-8")


def _file(exchange: Exchange, root: Path, name: str) -> Response:
    path = root / name
    compressed = f"{name}.gz" in _names(root) and "gzip" in exchange.headers.get("accept-encoding", "")
    if compressed:
        path = root / f"{name}.gz"
    stat = path.stat()
    tag = digest_of(path.name, str(stat.st_mtime_ns), str(stat.st_size))
    lifetime = "private, max-age=31536000, immutable" if _HASHED.search(name) else "private, no-cache"
    headers = {**_HEADERS, "etag": f'"{tag}"', "cache-control": lifetime, "vary": "Accept-Encoding"}
    if is_fresh(exchange, tag):
        return Response(status_code=304, headers=headers)
    if compressed:
        headers["content-encoding"] = "gzip"
    suffix = Path(name).suffix
    media_type = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return FileResponse(path, headers=headers, media_type=media_type, stat_result=stat)
