"""What an open viewer does when a study ends: a grant is revoked or over, or a study erased, while a tab shows it.

The viewer keeps pictures in its memory and would go on to show them as if they were current. So its page asks every
few seconds whether the study is held as it was (`/ohif/held`), and leaves for a page that says so (`/ohif/ended`) when
it is not; with the page its memory goes. The answer tells nothing but a count to who may retrieve the study, and is
not recorded: a question every few seconds would keep a viewing open that is over.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from bridge.dicom.attributes import Level, key
from bridge.dicom.matching import Query, match_for
from bridge.dicom.transfer_syntaxes import is_uid
from bridge.errors import CairnError
from bridge.model import Action
from dicomweb.exchange import Door, headers_of, refusal

HELD: Final = "held"
ENDED: Final = "ended"
_INSTANCES: Final = "00201208"
_NEVER_KEPT: Final = {"cache-control": "no-store"}

SCRIPT: Final = """
// Leaves a study that is not held any more as it was when it was opened (dicomweb/viewer_watch.py).
(() => {
  const held = new Map();
  let ticks = 0;
  function studies() {
    const given = new URLSearchParams(location.search).getAll('StudyInstanceUIDs');
    return given.flatMap((uids) => uids.split(','));
  }
  async function look() {
    for (const study of studies()) {
      const asked = fetch(`/ohif/held?study=${encodeURIComponent(study)}`, { cache: 'no-store' });
      const answer = await asked.catch(() => null);
      const instances = answer && answer.ok ? (await answer.json()).instances : undefined;
      const gone = answer && answer.status === 404;
      if (gone || instances < (held.get(study) || 0)) return location.replace('/ohif/ended');
      if (instances) held.set(study, Math.max(instances, held.get(study) || 0));
    }
  }
  setInterval(() => {
    ticks += 1;
    if (!document.hidden && (ticks % 5 === 0 || studies().some((study) => !held.has(study)))) look();
  }, 1000);
  document.addEventListener('visibilitychange', () => document.hidden || look());
})();
"""

_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Cairn: no longer available</title>
<meta name="viewport" content="width=device-width"><style>:root{color-scheme:light dark}
body{font-family:sans-serif;max-width:40em;margin:15vh auto;padding:0 1em;line-height:1.5}</style>
<main><h1>This study, or a part of it, is no longer available here</h1>
<p>The hospital that lent it has taken it back, its time is over, or it was erased. What this tab showed before is not
current, and is not shown any more.</p>
<p><a href="/ohif/">To the study list</a>, which shows what is left.</p></main></html>
"""


def held(door: Door, request: Request) -> Response:
    """`GET /ohif/held?study=UID`: `{"instances": N}` of a study that is held, 404 of any other; blocking."""
    headers = headers_of(request.scope["headers"])
    try:
        exchange = door.open(request, Action.RETRIEVE)
        study = dict(exchange.parameters).get("study", "")
        if not is_uid(study):
            return Response(status_code=404, headers=_NEVER_KEPT)
        wanted = (match_for(key("StudyInstanceUID"), study),)
        found = exchange.node.search(Query(Level.STUDY, keys=wanted, include=frozenset({_INSTANCES}), limit=1)).matches
    except CairnError as error:
        return refusal(error, headers)
    if not found:
        return Response(status_code=404, headers=_NEVER_KEPT)
    counted = found[0].get(_INSTANCES)
    values = counted.get("Value") if isinstance(counted, dict) else None
    return JSONResponse({"instances": int(str(values[0])) if values else 0}, headers=_NEVER_KEPT)


def ended() -> Response:
    """`GET /ohif/ended`: what is shown in place of the study."""
    return HTMLResponse(_PAGE, headers=_NEVER_KEPT)
