"""One process's view of a node: the adapters opened, the recipes on top of them, and the clock that drives both.

Thread-safe once opened. Made after a fork, never before: it opens databases and starts threads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import cast

from bridge import crash, lost_keys
from bridge.access.sessions import Sessions
from bridge.access.tokens import Tokens
from bridge.alerts import Alerts
from bridge.allocator import keep_freed_memory
from bridge.audit.trail import LedgerTrail
from bridge.config import Settings
from bridge.consensus import condition
from bridge.consortium import own_consortium
from bridge.consortium_log import followed, hospitals, misconduct, open_log, own_node
from bridge.consortium_model import Emergency
from bridge.consortium_rotation import awaits_restart
from bridge.consortium_waiting import apart
from bridge.content import recovery
from bridge.content.engine import each_of, open_content
from bridge.content.packs import PackStore
from bridge.crypto.erasures import Erasures
from bridge.crypto.keyring import Keyring
from bridge.crypto.keystore import Keystore
from bridge.crypto.wrapping import candidates
from bridge.dicom.matching import Query
from bridge.emergencies import glass_of
from bridge.errors import CairnError, NotFound, StorageFault
from bridge.index.audit_source import AuditSource
from bridge.index.grants import Grants
from bridge.index.index import SqlIndex
from bridge.index.record_leaves import RecordLeaves
from bridge.index.replica_places import ReplicaPlaces
from bridge.ledger_reading import index_place, ledger_home, opener, shared_ledger_home
from bridge.member_sources import MemberGateways, member_sources
from bridge.membership import Membership
from bridge.model import Actor, SearchPage, StudyContent
from bridge.overview import Overview
from bridge.replica_offers import ReplicaOffers
from bridge.reviews import Reviews
from bridge.sealed_entries import SealedEntries
from bridge.services.access import Access
from bridge.services.close_batch import Batches
from bridge.services.erase import refuse_erased
from bridge.services.gateway import Gateway
from bridge.services.provenance import Provenance, now_us
from bridge.services.receive_share import accept
from bridge.services.retrieve import Retrieve
from bridge.services.statement import Statements
from bridge.services.store import Store
from bridge.services.study_content import study_content
from bridge.sharing import sharing_of
from bridge.witnesses import own_witnessing
from ledger import entry as ledger_entry
from ledger.alerts import Alert, Misconduct
from ledger.engine.solo import DATABASE
from ledger.event import Event

log = logging.getLogger(__name__)
PULSE_S = 0.25
FOLLOWING_S = 0.5
WATCHING_S = 1.0
ASKING_S = 1.0
COMMAND = "command"
"""The owner's name of a command that holds the stores itself."""


class Node:
    """Everything a door needs, under the names the doors use.

    `owner` names the process ("dimse-0", "web-0", "command"): what a crash left open under it is closed first.
    `follows`: whether its audit trail takes in what the ledger seals, within a second; one process does.
    """

    def __init__(
        self,
        settings: Settings,
        keystore: Keystore,
        owner: str,
        *,
        not_ready: Callable[[], list[str]] = list,
        late: Callable[[], list[str]] = list,
        beat: Callable[[], None] = lambda: None,
        follows: bool = False,
    ) -> None:
        keep_freed_memory()
        self.version = version("cairn-pacs")
        self.settings = settings
        self.keystore = keystore
        self.owner = owner
        self.ready: Callable[[], list[str]] = lambda: [*not_ready(), *self.index.unreachable()]
        self._late = late
        self.ending: Callable[[], bool] = lambda: self.closed
        self._beat = beat
        home = settings.home
        lost_keys.refuse(settings)
        newer = partial(candidates, home, settings.keys.passphrase_file)
        self.keys = Keyring(home / "keys" / "keys.db", keystore, newer)
        self.erasures = Erasures(self.keys, keystore.audit_key)
        self.index = SqlIndex(index_place(settings), owner, self._durable, is_gone=self.erasures.is_gone)
        self.consortium = own_consortium(settings, keystore)
        self._open_content()
        hash_name = settings.content.hash
        provenance = Provenance()
        self.batches = Batches(self.index, self.content, owner, hash_name)
        self.batches.recover(self.index.open_batches(owner))
        rests_on = self.index.shares.rests_on
        self.access = Access(self.batches, self.keys, provenance, keystore.audit_key, rests_on=rests_on)
        self.sealed = SealedEntries(ledger_home(settings) / DATABASE, self.consortium)
        self.statements = Statements(self.batches, provenance, keystore.audit_key, self.sealed.made)
        self.store = Store(self.content, self.index, self.keys, self.batches, provenance, hash_name)
        damaged = self.index.mark_damaged
        refuse = partial(refuse_erased, self.erasures)
        self.retrieve = Retrieve(
            self.content, self.packs, self.index, self.keys, damaged, each_of(self.content), refuse
        )
        self.gateway = Gateway(self.content, self.packs, Grants(self.index.database))
        self.witnessing = own_witnessing(settings, keystore, self.sources)
        self._open_trail()
        self.tokens = Tokens(self.index)
        self.sessions = Sessions(self.index)
        self.authoriser = self.tokens
        self.sharing = sharing_of(self)
        self.glass = glass_of(self)
        self.membership = self._membership()
        self.closed = False
        self._stopped = threading.Event()
        self._clocks = self._started(follows)

    def _open_content(self) -> None:
        """Packs, the members as sources of blocks, and the content engine over both."""
        settings, home = self.settings, self.settings.home
        recovery.recover(home / "packs", self.index.committed_end)
        self.packs = PackStore(
            home,
            self.owner,
            self.index.locate_block,
            committed_end=self.index.committed_end,
            last_pack=self.index.last_pack,
            pack_bytes=settings.content.pack_bytes,
            reserve_bytes=settings.content.reserve_bytes,
        )
        self._wrong: deque[tuple[str, str]] = deque(maxlen=100)
        self.sources = member_sources(settings.members, self._offered_wrong)
        self.gateways = self._gateways()
        sources = (*self.sources, *([self.gateways] if self.gateways is not None else ()))
        self.content = open_content(settings, self.packs, self.index.pins, sources)

    def _open_trail(self) -> None:
        """What reads the ledger: overview, audit trail, log, alerts."""
        settings, home = self.settings, self.settings.home
        spool = (settings.audit.spool or home / "audit-spool") if settings.audit.repository_host else None
        shared = self.consortium
        own = None if shared is None else own_node(shared, self.keystore).id
        place = None if own is None else (shared_ledger_home(settings), own)
        self.overview = Overview(home, ledger_home(settings), self.index, settings.content, spool, place)
        open_record = opener(self.keys, self.keystore)
        source = AuditSource(self.index.database)
        logs, named = followed(settings), hospitals(shared)
        self.audit = LedgerTrail(
            *(home / "audit.db", logs, source, self.keys, open_record, named), self.erasures.tags_of
        )
        leaves = RecordLeaves(self.index.database)
        self.log = open_log(settings, self.keystore, shared, leaves, open_record, self.audit, self.witnessing)
        self.watch = Alerts(
            *(self.audit, self.access, self.index.database, open_record, settings.alerts),
            own=own,
            proved=self._misconduct,
            refs=lambda id: ledger_entry.read(self.log.envelope(id)).refs,
            lock=home / "run" / "alerts.lock",
        )
        across, hours = self.index.emergencies.all, settings.alerts.review_hours
        self._reviews = Reviews(self.audit, across, own, lambda: self.hospital, hours)

    def _gateways(self) -> MemberGateways | None:
        """The listeners of the consortium's other members."""
        if self.consortium is None or self.settings.members.certificate is None:
            return None
        likely = ReplicaPlaces(self.index).likely
        return MemberGateways(self.consortium, self.settings.members, likely, self._offered_wrong)

    def _offered_wrong(self, member: str, cid: str) -> None:
        """A member offered another block than it was asked for: refused; told by the clock, whoever asked for it."""
        self._wrong.append((member, cid))

    def _membership(self) -> Membership | None:
        if self.consortium is None:
            return None
        return Membership(self.settings.home, self.consortium, self.statements, self.index, self.sharing)

    def search(self, query: Query) -> SearchPage:
        """One page of matches. Raises QueryInvalid."""
        return self.index.search(query)

    def degraded(self) -> list[str]:
        """What is wrong while the node serves instances, and takes those that it has room for, all the same."""
        full = self.overview.full()
        try:
            faults = self.index.content_state.faults()
            return [*self._late(), *full, *self._apart(), *self._rotating(), *(fault.reason for fault in faults)]
        except StorageFault as error:
            return [*full, error.detail]

    def _apart(self) -> list[str]:
        """What its part in consensus waits for."""
        if self.consortium is None:
            return []
        own, active = self.consortium.own(), self.consortium.state().active
        return apart(own, active, condition.read(self.settings.home), now_us())

    def _rotating(self) -> list[str]:
        own = None if self.consortium is None else self.consortium.own()
        if own is None or not awaits_restart(own, self.keystore):
            return []
        return ["the members accepted this node's new ledger key: its processes are started afresh with it"]

    def refuse_erased(self, study: str) -> None:
        """Raise Gone when a study was erased here and is not held again. Raises StorageFault."""
        if not self.index.trees.of_study(study):
            refuse_erased(self.erasures, study)

    def study_content(self, study: str, most: int | None = None) -> StudyContent:
        """Where a study lies; at most `most` instances of a tree are looked at. Raises NotFound, StorageFault."""
        return study_content(self.index, self.content.get, self.settings.content.engine, study, most)

    def accept_share(self, actor: Actor, data: bytes) -> str:
        """As `services.receive_share.accept`. Raises NotFound when the node is in no consortium."""
        if self.sharing is None:
            raise NotFound("this node is in no consortium")
        return accept(self.sharing, self.access, actor, data)

    def accept_emergency(self, actor: Actor, asked: object) -> None:
        """A member broke the glass and says for which study. Errors as `bridge.emergencies.Glass.accept`."""
        if self.glass is None:
            raise NotFound("this node is in no consortium")
        self.glass.accept(actor, asked)

    def break_glass(self, actor: Actor, member: str, study: str, reason: str) -> str:
        """Take a member's study in an emergency; the entry's id. Errors as `bridge.emergencies.Glass.start`."""
        if self.glass is None:
            raise NotFound("this node is in no consortium")
        return self.glass.start(actor, member, study, reason).entry.hex()

    def consensus(self, method: str, parameters: Mapping[str, str]) -> object:
        """What this node's CometBFT says to a member's light client. Raises NotFound, EngineFault."""
        if self.consortium is None:
            raise NotFound("this node is in no consortium")
        from bridge.consensus.rpc import Rpc
        from bridge.consensus.rpc_proxy import answer

        rpc = Rpc(self.settings.ledger.cometbft.rpc)
        try:
            return answer(rpc, method, parameters)
        finally:
            rpc.close()

    def replicas_wanted(self, member: str, after: int) -> Mapping[str, object]:
        """What a member is to keep of this node's studies, and what is refused of its. Raises NotFound to no member."""
        if self.consortium is None:
            raise NotFound("this node is in no consortium")
        return ReplicaOffers(self.index, self.consortium, self.settings.replication).told(member, after)

    @property
    def hospital(self) -> str:
        """This node's name in its consortium; "" without one."""
        if self.consortium is None:
            return ""
        return hospitals(self.consortium)(own_node(self.consortium, self.keystore).id)

    def alerts(self) -> Sequence[Alert]:
        """The newest alerts that the rules raised, at most 1,000, newest first. Raises StorageFault."""
        return self.watch.recorded()

    def review(self, actor: Actor, entry: bytes, note: str) -> Event:
        """Record that an entry was reviewed; its event. Raises NotFound, RequestError, and as a store does."""
        event = self.watch.review(actor, entry, note)
        bodies = [detail.body for detail in self.audit.details(event.id) if detail.body is not None]
        about = [ref for body in bodies for ref in cast(Sequence[bytes], body.get("refs", ()))]
        for broken in (event.id, *about):  # of an emergency either side's entry is reviewed, or what it gave for it
            if self.index.emergencies.of(broken) is not None:
                self.index.emergencies.change(broken, reviewed=now_us())
        return event

    def emergencies(self) -> Sequence[Emergency]:
        """Break-glass accesses, reviewed and not, newest first. Raises StorageFault."""
        return self._reviews.all()

    def reviews_due(self) -> Sequence[int | None]:
        """When each review of an emergency that is missing is due. Raises StorageFault."""
        return self._reviews.due()

    def close(self) -> None:
        """Close what is open, in the order in which it depends: sessions, batches, index, packs, keys."""
        self.closed = True
        self._stopped.set()
        self.audit.stop()
        for clock in self._clocks:
            clock.join()
        with contextlib.ExitStack() as closing:  # each is closed, whatever the one before it raises
            for last_first in (self.keys.close, self.content.close, self.index.close, self.log.close, self.audit.close):
                closing.callback(last_first)
            for source in (*self.sources, self.gateways, self.sealed, self.consortium, self.witnessing):
                if source is not None:
                    closing.callback(source.close)
            self.access.close_all()
            self.batches.close_all()

    def _misconduct(self) -> Iterable[Misconduct]:
        """What was proved against the logs of others, or this one, and against members of the consortium."""
        of_logs = self.witnessing.misconduct() if self.witnessing is not None else ()
        return [*of_logs, *(misconduct(self.consortium) if self.consortium is not None else ())]

    def _durable(self) -> None:
        """(5) of the way in, called by who commits the index before each group's COMMIT (6)."""
        crash.step("store.5")
        self.packs.sync()
        crash.step("store.6")

    def _record_access(self) -> None:
        self._beat()
        self.access.flush()
        while self._wrong:
            self.watch.wrong_block(*self._wrong.popleft())
        self.packs.release_removed()
        if self.packs.refuses:
            log.error("the content store refuses to write after an I/O error: this process ends, to be started afresh")
            os.kill(os.getpid(), signal.SIGTERM)

    def _started(self, follows: bool) -> list[threading.Thread]:
        # Clocks of their own: closing many batches takes a while, as does following a ledger from its beginning, and
        # access must be recorded within a second meanwhile.
        works: list[tuple[str, float, Callable[[], object]]] = [
            ("batches", PULSE_S, self.batches.tick),
            ("access", PULSE_S, self._record_access),
        ]
        if follows:
            works += [("audit", FOLLOWING_S, self.audit.follow), ("alerts", WATCHING_S, self.watch.step)]
            if self.witnessing is not None:
                asking = (partial(self.witnessing.step, each, self.log) for each in self.witnessing.witnesses)
                works += [("witness", ASKING_S, ask) for ask in asking]
        clocks = [
            threading.Thread(target=self._every, args=(seconds, work), name=name, daemon=True)
            for name, seconds, work in works
        ]
        for clock in clocks:
            clock.start()
        return clocks

    def _every(self, seconds: float, work: Callable[[], object]) -> None:
        while not self._stopped.wait(seconds):
            try:
                work()
            except CairnError as error:
                log.error("the clock's work failed and is tried again", extra={"slug": error.slug})
