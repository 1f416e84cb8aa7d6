"""What this front door asks of a node: the part of `bridge.node.Node` that HTTP needs, as a Protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

from bridge.consortium_model import ConsortiumOverview, Emergency, Motion, Planned, Replica, Share
from bridge.dicom.matching import Query
from bridge.errors import AccessError
from bridge.model import (
    Action,
    Actor,
    ContentOverview,
    InstanceKey,
    LedgerHealth,
    Outcome,
    Role,
    SearchPage,
    StorageOverview,
    StoredInstance,
    StudyContent,
)
from bridge.ports import AuditTrail, LedgerLog
from ledger.alerts import Alert
from ledger.event import Event
from ledger.witness import Answer, WitnessingState

Viewing = Any  # the node's own token of a recorded access; handed back to it unread


class WebSettings(Protocol):
    """`[web]` of the settings."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def trusted_proxies(self) -> Sequence[str]: ...
    @property
    def max_body_bytes(self) -> int: ...
    @property
    def query_limit(self) -> int: ...
    @property
    def viewer_dir(self) -> Path | None: ...


class AccessSettings(Protocol):
    """`[access]` of the settings."""

    @property
    def anonymous_role(self) -> Role | None: ...


class Settings(Protocol):
    @property
    def home(self) -> Path: ...
    @property
    def web(self) -> WebSettings: ...
    @property
    def access(self) -> AccessSettings: ...


class Authoriser(Protocol):
    def identify(self, credential: str, address: str) -> Actor:
        """The actor of a token or session. Raises Unauthenticated."""

    def allow(self, actor: Actor, action: Action) -> None:
        """Raises Forbidden unless the actor may."""


class Sessions(Protocol):
    def redeem(self, link_token: str) -> str:
        """The session secret that a login link buys, once. Raises Unauthenticated."""


class Access(Protocol):
    def view(self, actor: Actor, study: str, purpose: str, reason: str | None = None) -> Viewing:
        """A viewing whose opening record is durable. Raises AccessNotRecordable."""

    def view_kept(self, actor: Actor, tag: bytes, purpose: str) -> Viewing:
        """Likewise, of a study that is kept here for the actor without its key. Raises AccessNotRecordable."""

    def query(self, actor: Actor, level: str, keys: Sequence[str], found: int) -> None:
        """Record, within one second, a search by the names of its keys. Raises AccessNotRecordable."""

    def audited(self, actor: Actor, what: str) -> None:
        """Record, within one second, that the ledger was read. Raises AccessNotRecordable."""

    def refused(self, actor: Actor | None, address: str, why: str) -> None:
        """Record a refused request."""

    def unrecognised(self, error: AccessError, address: str) -> None:
        """Record a failed login."""


class BulkValue(Protocol):
    @property
    def vr(self) -> str: ...
    @property
    def data(self) -> bytes: ...


class Retrieve(Protocol):
    def locate(self, study: str, series: str | None = None, sop: str | None = None) -> Sequence[StoredInstance]:
        """The instances below the resource. Raises NotFound."""

    def files(self, viewing: Viewing, instances: Sequence[StoredInstance]) -> Iterator[Iterator[bytes]]:
        """The whole Part 10 file of each, as `part10`; each is read to its end before the next is taken."""

    def part10(self, viewing: Viewing, instance: StoredInstance) -> Iterator[bytes]:
        """The whole Part 10 file, `instance.object.length` bytes in chunks. Raises IntegrityError."""

    def frames(self, viewing: Viewing, instance: StoredInstance, numbers: Sequence[int]) -> Iterator[bytes]:
        """One bytes object per frame number (from 1). Raises NotFound beyond the last."""

    def bulk(self, viewing: Viewing, instance: StoredInstance, path: str) -> BulkValue:
        """The value that a BulkDataURI path names. Raises NotFound."""

    def metadata(
        self, viewing: Viewing, study: str, series: str | None = None, sop: str | None = None
    ) -> Iterator[tuple[InstanceKey, bytes]]:
        """DICOM JSON objects whose BulkDataURI values are `bulkdata/<path>`. Raises NotFound."""


class Receipt(Protocol):
    @property
    def key(self) -> InstanceKey: ...
    @property
    def sop_class(self) -> str: ...
    @property
    def outcome(self) -> Outcome: ...
    @property
    def warnings(self) -> Sequence[Any]: ...


class Incoming(Protocol):
    @property
    def key(self) -> InstanceKey | None:
        """The identity, once the header was read."""

    @property
    def sop_class(self) -> str | None:
        """The SOP Class, once it is known."""

    def write(self, data: bytes) -> None:
        """The next bytes of the Part 10 file. Raises CairnError as soon as it cannot be taken."""

    def submit(self) -> Callable[[], Receipt]:
        """All is written; what is returned waits until it is durable. Both raise CairnError."""

    def abort(self) -> None:
        """Forget what was written."""


class Reception(Protocol):
    def begin(self, study: str | None = None) -> Incoming:
        """A Part 10 file follows, which must belong to `study` when that is given. Raises Busy."""


class Store(Protocol):
    def reception(self, actor: Actor, purpose: str = "TREAT") -> AbstractContextManager[Reception]:
        """One request's stores; leaving it closes its batches."""


class SealedGrant(Protocol):
    """A CID that the actor may fetch, in its text form, and of which study; None for the probe of gateways.

    Of a study that is kept here for the actor without its key the `tag` is told instead.
    """

    @property
    def name(self) -> str: ...
    @property
    def study(self) -> str | None: ...
    @property
    def tag(self) -> bytes | None: ...


class SealedCar(Protocol):
    """A CAR: the CIDs that its path passed, and its bytes, whose reading may raise ContentMissing, ContentCorrupt.

    `length` is how many bytes there will be; None where that is not known.
    """

    @property
    def passed(self) -> Sequence[str]: ...
    @property
    def chunks(self) -> Iterator[bytes]: ...
    @property
    def length(self) -> int | None: ...


class Gateway(Protocol):
    def grant(self, actor: Actor, name: str) -> Any:
        """The SealedGrant of a CID's text form. Raises RequestError, Forbidden, Gone, NotFound."""

    def held(self, granted: Any) -> bool:
        """Whether the block is at hand."""

    def block(self, viewing: Viewing | None, granted: Any) -> bytes:
        """The block; b"" of the probe, for which nothing is viewed. Raises NotFound, IntegrityError."""

    def car(
        self,
        viewing: Viewing | None,
        granted: Any,
        path: Sequence[str],
        scope: Literal["block", "entity", "all"],
        span: tuple[int, int | None] | None,
        duplicates: bool,
    ) -> SealedCar:
        """A CAR of what lies at a path below the CID. Raises NotFound, RequestError, IntegrityError."""


class Overview(Protocol):
    def ledger(self) -> LedgerHealth:
        """The ledger's state now. Raises StorageFault."""

    def storage(self) -> StorageOverview:
        """What is stored, by counts that are some seconds old. Raises StorageFault."""

    def content(self) -> ContentOverview:
        """How the archive stands with its content engine. Raises StorageFault."""

    def stored_between(self, moments: Sequence[int]) -> Sequence[int]:
        """Instances stored between each of these ascending moments (microseconds) and the next."""


class Membership(Protocol):
    """A node's part in a consortium: who belongs to it, and what they share; every method may raise StorageFault."""

    def overview(self) -> ConsortiumOverview:
        """How the consortium stands, as this node sees it now."""

    def shares(self, study: str | None = None) -> Sequence[Share]:
        """What was given and received, newest first; of one study when it is named."""

    def grant(self, actor: Actor, study: str, member: str, purpose: str, expires: str | None) -> str:
        """Give a study to a member, durably on its way when it returns; the grant's id. `expires`: 30d, 2027-01-31.

        Raises NotFound when the study is not held here, RequestError for a member, purpose or time that cannot be.
        """

    def revoke(self, actor: Actor, grant: str) -> None:
        """End a grant of this node. Raises NotFound."""

    def replicas(self) -> Sequence[Replica]:
        """Sealed blocks kept at other members, and kept here for them."""

    def emergencies(self) -> Sequence[Emergency]:
        """Break-glass accesses across hospitals that last or are not reviewed, newest first."""

    def vote(self, actor: Actor, proposal: bytes, yes: bool) -> bool:
        """Vote on a proposal, durably on its way when it returns; whether it is final by then.

        Raises NotFound, RequestError.
        """

    def plan(self, motion: Motion) -> Planned:
        """What a proposal would change; nothing is stated. Raises NotFound, RequestError with the reason."""

    def propose(self, actor: Actor, motion: Motion) -> bytes | None:
        """Put it to the vote, durably on its way when it returns; its id when it is final. Raises as `plan`."""


class Witnessing(Protocol):
    """Nodes that watch over each other's logs (C2SP tlog-witness)."""

    def add_checkpoint(self, member: str, body: bytes) -> Answer:
        """What is answered to a member that submits a checkpoint. Raises StorageFault."""

    def state(self) -> WitnessingState:
        """How both sides stand. Raises StorageFault."""


class Node(Protocol):
    """A running node; every method may block and is called from worker threads."""

    @property
    def version(self) -> str: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def authoriser(self) -> Authoriser: ...
    @property
    def sessions(self) -> Sessions: ...
    @property
    def access(self) -> Access: ...
    @property
    def retrieve(self) -> Retrieve: ...
    @property
    def store(self) -> Store: ...
    @property
    def audit(self) -> AuditTrail: ...
    @property
    def log(self) -> LedgerLog: ...
    @property
    def witnessing(self) -> Witnessing | None:
        """What the node cosigns and has cosigned; None when it does neither."""

    @property
    def gateway(self) -> Gateway: ...
    @property
    def overview(self) -> Overview: ...
    @property
    def membership(self) -> Membership | None:
        """The node's part in a consortium; None when it is in none."""

    def accept_share(self, actor: Actor, data: bytes) -> str:
        """Take the package of a grant that a member brings; the state that the grant is in.

        Raises NotFound without a consortium, Forbidden for what does not hold, Busy while the grant is not final here.
        """

    def consensus(self, method: str, parameters: Mapping[str, str]) -> object:
        """What this node's CometBFT says to a member's light client. Raises NotFound, EngineFault."""

    def accept_emergency(self, actor: Actor, asked: object) -> None:
        """A member broke the glass and says for which study of this node, and why.

        Raises RequestError, Busy while the entry is not final here, Forbidden when it does not hold, NotFound.
        """

    def break_glass(self, actor: Actor, member: str, study: str, reason: str) -> str:
        """Take a member's study in an emergency, by UID or tag; the id of the entry that says so.

        Raises RequestError, NotFound of a node in no consortium, Busy.
        """

    def replicas_wanted(self, member: str, after: int) -> Mapping[str, object]:
        """What a member is to keep of this node's studies, and what is refused of its. Raises NotFound to no member."""

    @property
    def hospital(self) -> str:
        """This node's name in its consortium; "" without one."""

    def alerts(self) -> Sequence[Alert]:
        """The newest alerts that the rules raised, newest first. Raises StorageFault."""

    def emergencies(self) -> Sequence[Emergency]:
        """Break-glass accesses, across hospitals and in this one, reviewed or not, newest first.

        Raises StorageFault.
        """

    def reviews_due(self) -> Sequence[int | None]:
        """When each review that is missing is due, in microseconds since the epoch; None: at no time.

        Raises StorageFault.
        """

    def review(self, actor: Actor, entry: bytes, note: str) -> Event:
        """Record that an emergency was reviewed, with what finding; the event that was.

        Raises NotFound, RequestError for a finding that is none.
        """

    def ready(self) -> Sequence[str]:
        """Reasons why the node is not ready; empty when it is."""

    def degraded(self) -> Sequence[str]:
        """What is wrong while the node is ready all the same; empty when nothing is."""

    def ending(self) -> bool:
        """Whether this process is about to stop, so that answers which last must end."""

    def refuse_erased(self, study: str) -> None:
        """Raises Gone when a study was erased here and is not held again."""

    def study_content(self, study: str, most: int | None = None) -> StudyContent:
        """Where a study lies; at most `most` instances of a tree are looked at. Raises NotFound, StorageFault."""

    def search(self, query: Query) -> SearchPage:
        """One page of matches. Raises QueryInvalid."""
