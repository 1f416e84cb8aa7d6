"""A node in memory, as small as the doors need, and a client of the application in front of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal

from bridge import errors
from bridge.consortium_model import Emergency
from bridge.dicom.matching import Query
from bridge.model import (
    Action,
    Actor,
    ActorKind,
    InstanceKey,
    Outcome,
    Role,
    SealedObject,
    SearchPage,
    StoredInstance,
    StudyContent,
)

STUDY, SERIES = "1.2.3", "1.2.3.1"
NATIVE = "1.2.840.10008.1.2.1"
MAY = {
    Role.VIEWER: {Action.SEARCH, Action.RETRIEVE},
    Role.CLINICIAN: {Action.SEARCH, Action.RETRIEVE, Action.STORE},
    Role.DEVICE: {Action.STORE},
    Role.AUDITOR: {Action.AUDIT},
    Role.ADMIN: set(Action),
}


@dataclass
class Held:
    """One instance as the fake keeps it."""

    instance: StoredInstance
    file: bytes
    frames: list[bytes]
    metadata: bytes
    bulk: dict[str, bytes] = field(default_factory=dict)


class FakeNode:
    """Tokens are role names; `recorded` has what was recorded, in order, so that order can be asserted."""

    def __init__(self) -> None:
        self.version = "0.0.test"
        web = SimpleNamespace(
            host="127.0.0.1",
            port=8042,
            trusted_proxies=(),
            max_body_bytes=2 << 20,
            query_limit=3,
            viewer_dir=None,
        )
        self.settings: Any = SimpleNamespace(
            web=web, access=SimpleNamespace(anonymous_role=None), home=Path("/nowhere")
        )
        self.authoriser = self.sessions = self.access = self.retrieve = self.store = self
        self.recorded: list[tuple[Any, ...]] = []
        self.held: dict[InstanceKey, Held] = {}
        self.links = {"once": "session-viewer"}
        self.page = SearchPage((), 0)
        self.queries: list[Query] = []
        self.not_ready: list[str] = []
        self.wrong: list[str] = []
        self.fault: Exception | None = None
        self.stopped = False
        self.audit: Any = None
        self.log: Any = None
        self.membership: Any = None
        self.witnessing: Any = None
        self.hospital = ""
        self.contents: dict[str, StudyContent] = {}
        self.erased: set[str] = set()
        self.broken: list[Emergency] = []

    def emergencies(self) -> list[Emergency]:
        return self.broken

    def reviews_due(self) -> list[int | None]:
        return [one.due_us for one in self.broken if not one.reviewed]

    def ready(self) -> list[str]:
        return self.not_ready

    def degraded(self) -> list[str]:
        return self.wrong

    def ending(self) -> bool:
        return self.stopped

    def identify(self, credential: str, address: str) -> Actor:
        name = credential.removeprefix("session-")
        if name not in set(Role):
            raise errors.Unauthenticated("unknown token")
        return Actor(ActorKind.USER, name, Role(name), address, "http")

    def allow(self, actor: Actor, action: Action) -> None:
        if actor.role is None or action not in MAY[actor.role]:
            raise errors.Forbidden("role")

    def redeem(self, link_token: str) -> str:
        if link_token not in self.links:
            raise errors.Unauthenticated("no such link")
        return self.links.pop(link_token)

    def view(self, actor: Actor, study: str, purpose: str, reason: str | None = None) -> str:
        if isinstance(self.fault, errors.AccessNotRecordable):
            raise self.fault
        self.recorded.append(("view", actor.name, study, purpose, reason))
        return f"viewing {study}"

    def query(self, actor: Actor, level: str, keys: Sequence[str], found: int) -> None:
        if isinstance(self.fault, errors.AccessNotRecordable):
            raise self.fault
        self.recorded.append(("query", actor.name, level, *keys, found))

    def audited(self, actor: Actor, what: str) -> None:
        if isinstance(self.fault, errors.AccessNotRecordable):
            raise self.fault
        self.recorded.append(("audited", actor.name, what))

    def refused(self, actor: Actor | None, address: str, why: str) -> None:
        self.recorded.append(("refused", actor.name if actor else None, address))

    def unrecognised(self, error: errors.AccessError, address: str) -> None:
        self.recorded.append(("refused", None, address))

    def search(self, query: Query) -> SearchPage:
        if self.fault is not None:
            raise self.fault
        self.queries.append(query)
        return self.page

    def refuse_erased(self, study: str) -> None:
        if study in self.erased:
            raise errors.Gone("The study was erased here")

    def study_content(self, study: str, most: int | None = None) -> StudyContent:
        if study not in self.contents:
            raise errors.NotFound("no such study is held")
        return self.contents[study]

    def add(
        self,
        sop: str,
        syntax: str = NATIVE,
        frames: Sequence[bytes] = (b"\1\2", b"\3\4", b"\5\6"),
        series: str = SERIES,
    ) -> Held:
        key = InstanceKey(STUDY, series, sop)
        file = b"\0" * 128 + b"DICM" + sop.encode() * 50_000
        digest = hashlib.sha256(file + syntax.encode()).digest()
        sealed = SealedObject(b"root", b"h" * 40, len(file))
        instance = StoredInstance(
            len(self.held) + 1,
            key,
            "1.2.840.10008.5.1.4.1.1.2",
            syntax,
            digest,
            b"s" * 16,
            b"t" * 16,
            1,
            sealed,
            132,
            b"",
            b"",
            False,
        )
        metadata = (
            f'{{"00080018":{{"vr":"UI","Value":["{sop}"]}},"7FE00010":{{"vr":"OW","BulkDataURI":"bulkdata/7FE00010"}}}}'
        )
        held = Held(instance, file, list(frames), metadata.encode(), {"7FE00010": b"".join(frames)})
        self.held[key] = held
        return held

    def locate(self, study: str, series: str | None = None, sop: str | None = None) -> Sequence[StoredInstance]:
        wanted = (study, series, sop)
        found = [
            held.instance
            for key, held in self.held.items()
            if all(want is None or want == have for want, have in zip(wanted, key, strict=True))
        ]
        if not found:
            raise errors.NotFound("nothing there")
        return found

    def files(self, viewing: str, instances: Sequence[StoredInstance]) -> Iterator[Iterator[bytes]]:
        return (self.part10(viewing, instance) for instance in instances)

    def part10(self, viewing: str, instance: StoredInstance) -> Iterator[bytes]:
        assert ("view" in self.recorded[-1][0]) and viewing == f"viewing {instance.key.study}"
        if self.fault is not None:
            raise self.fault
        file = self.held[instance.key].file
        for start in range(0, len(file), 1000):
            yield file[start : start + 1000]

    def frames(self, viewing: str, instance: StoredInstance, numbers: Sequence[int]) -> Iterator[bytes]:
        held = self.held[instance.key].frames
        if max(numbers) > len(held):
            raise errors.NotFound("no such frame")
        for number in numbers:
            yield held[number - 1]

    def bulk(self, viewing: str, instance: StoredInstance, path: str) -> Any:
        values = self.held[instance.key].bulk
        if path not in values:
            raise errors.NotFound("no such value")
        return SimpleNamespace(vr="OW", data=values[path])

    def metadata(
        self, viewing: str, study: str, series: str | None = None, sop: str | None = None
    ) -> Iterator[tuple[InstanceKey, bytes]]:
        for instance in self.locate(study, series, sop):
            yield instance.key, self.held[instance.key].metadata

    @contextmanager
    def reception(self, actor: Actor, purpose: str = "TREAT") -> Iterator[FakeReception]:
        self.recorded.append(("reception", actor.name, purpose))
        yield FakeReception(self)
        self.recorded.append(("closed",))


class FakeReception:
    def __init__(self, node: FakeNode) -> None:
        self.node = node

    def begin(self, study: str | None = None) -> FakeIncoming:
        return FakeIncoming(self.node, study)


class FakeIncoming:
    """Takes files that read `STORE <study> <sop>` or `<ErrorName> [<sop>]`, and fails as they say."""

    def __init__(self, node: FakeNode, study: str | None) -> None:
        self.node = node
        self.study = study
        self.data = b""
        self.key: InstanceKey | None = None
        self.sop_class: str | None = None

    def write(self, data: bytes) -> None:
        self.data += data

    def abort(self) -> None:
        self.node.recorded.append(("abort", len(self.data)))

    def submit(self) -> Callable[[], Any]:
        late = self.data.startswith((b"STORE", b"Storage"))
        self.node.recorded.append(("submitted",))
        made = None if late else self._commit()
        return self._commit if late else lambda: made

    def _commit(self) -> Any:
        verb, *words = self.data.rstrip(b"\0").decode().split()
        if verb != "STORE":
            if words:
                self.key, self.sop_class = InstanceKey(STUDY, SERIES, words[0]), "1.2.840.10008.5.1.4.1.1.2"
            raise getattr(errors, verb)("as told")
        study, sop = words
        self.key, self.sop_class = InstanceKey(study, SERIES, sop), "1.2.840.10008.5.1.4.1.1.2"
        if self.study not in (None, study):
            raise errors.IdentityMismatch("another study")
        self.node.recorded.append(("stored", sop))
        return SimpleNamespace(key=self.key, sop_class=self.sop_class, outcome=Outcome.NEW, warnings=())


class Client:
    """httpx against the application in this process, called from ordinary tests; no redirects are followed."""

    def __init__(self, portal: BlockingPortal, app: Any, peer: str = "127.0.0.1") -> None:
        self.portal = portal
        self.headers: dict[str, str] = {}
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(peer, 5000))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8042")
        self.http.headers.clear()

    def request(self, method: str, url: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            return await self.http.request(method, url, headers={**self.headers, **(headers or {})}, **more)

        return self.portal.call(send)

    def get(self, url: str, **more: Any) -> httpx.Response:
        return self.request("GET", url, **more)

    def head(self, url: str, **more: Any) -> httpx.Response:
        return self.request("HEAD", url, **more)

    def post(self, url: str, **more: Any) -> httpx.Response:
        return self.request("POST", url, **more)
