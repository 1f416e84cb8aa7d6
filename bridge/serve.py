"""What `cairn serve` runs: which processes there are, what each does, and what is printed when all accept."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge import commands, control, lost_keys, start_stop, unfinished
from bridge.access import devices
from bridge.config import Settings
from bridge.consensus.closing import refuse_reopening
from bridge.consensus.lost_blocks import set_log_aside
from bridge.consortium_log import own_node
from bridge.consortium_rotation import open_keys
from bridge.crypto.keyring import Keyring
from bridge.crypto.keystore import Keystore
from bridge.erasing import carry_on_before_serving, goes_on
from bridge.errors import AccessError
from bridge.ledger_reading import ledger_is_empty, origin_of, renew_lost_epoch, try_index
from bridge.model import Actor
from bridge.node import Node
from bridge.runlock import RunLock
from bridge.status_board import StatusBoard
from bridge.supervisor import Child, Supervisor, listen
from ledger.export.atna import Source

if TYPE_CHECKING:
    import ssl

    from bridge.audit_forwarding.forwarder import Forwarder
    from bridge.members_listener import MembersListener

log = logging.getLogger(__name__)
WEB, LEDGER, CONTENT, MEMBERS = "web-0", "ledger-0", "content-0", "members-0"
MOST_DOORS = 4
WEB_APP = "dicomweb.app:create_app"
DICOM_DOOR = "bridge.dimse.acceptor"
KUBO = "bridge.content.kubo.store"
Say = Callable[[str], None]


class _Listeners(NamedTuple):
    """What is bound once, before anything is forked, and held until the node ends."""

    dicom: socket.socket
    http: socket.socket
    members: _MembersDoor | None


def serve(settings: Settings, *, sample: bool, say: Say) -> int:
    """Run a node until SIGTERM or SIGINT; the exit code. Raises ConfigError when it cannot start.

    Its processes are started afresh, the listeners held meanwhile, when one of them asks for that (`supervisor.RENEW`).
    """
    with RunLock(settings.home):
        unfinished.refuse(settings.home)
        refuse_reopening(settings)
        keystore = open_keys(settings)
        lost_keys.refuse(settings)
        erasing = _erases(settings, keystore)  # tells, too, when the key database is damaged
        keys_are_new = ledger_is_empty(settings)
        try_index(settings)
        first = start_stop.is_first(settings)
        if settings.ledger.engine == "solo" and keys_are_new and not first:
            log.error(
                "there is no ledger, though this node has run before: a new one is begun; restore a lost one first"
            )
        if renew_lost_epoch(settings):
            log.error("the index has lost batches that the ledger has sealed: run cairn fsck, restore or rebuild-index")
        set_log_aside(settings)
        if erasing:
            carry_on_before_serving(settings, keystore)
        listeners = _Listeners(
            listen(settings.dimse.host, settings.dimse.port, "DICOM"),
            listen(settings.web.host, settings.web.port, "HTTP"),
            _members_door(settings),
        )
        # Imported before the fork, so that the doors share its pages. Where pydicom finds numpy, that would start
        # threads, which a fork must not meet.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        importlib.import_module(DICOM_DOOR)
        if settings.content.engine != "embedded":
            importlib.import_module(KUBO)
        supervisor = _supervisor(settings, keystore, listeners, keys_are_new)
        code = supervisor.run(partial(_announce, settings, keystore, first=first, sample=sample, say=say))
        while supervisor.renews:
            following = _supervisor(settings, open_keys(settings), listeners, keys_are_new=False)
            if supervisor.renews:  # it was not ended meanwhile
                code = following.run(lambda: None)
                supervisor = following
        return code


def _erases(settings: Settings, keystore: Keystore) -> bool:
    """Whether an erasure was begun and did not end. Raises DatabaseDamaged, StorageFault."""
    with closing(Keyring(settings.home / "keys" / "keys.db", keystore)) as keys:
        return goes_on(keys, keystore)


def _supervisor(settings: Settings, keystore: Keystore, listeners: _Listeners, keys_are_new: bool) -> Supervisor:
    """The node's processes, none of which runs yet."""
    dicom, http, members = listeners
    doors = [f"dimse-{number}" for number in range(settings.dimse.processes or min(processors(), MOST_DOORS))]
    meets = settings.ledger.engine != "solo" and members is not None
    board = StatusBoard((*doors, WEB, LEDGER), spared=(CONTENT, *((MEMBERS,) if meets else ())))
    children = [
        *(Child(door, partial(_dimse, settings, keystore, dicom, board, door, doors)) for door in doors),
        Child(WEB, partial(_web, settings, keystore, http, members, board, board.names, keys_are_new)),
        Child(LEDGER, partial(_ledger, settings, keystore, board)),
        Child(CONTENT, partial(_content, settings, keystore, board)),
        *([Child(MEMBERS, partial(_members, settings, keystore, board))] if meets else []),
    ]
    return Supervisor(children, board)


def _until_terminated() -> threading.Event:
    """An event set by SIGTERM; to be called before other threads are started, as some libraries do when imported.

    A thread waits for the signal: a handler that set the event would run in the main thread, which may hold the event's
    lock. Ctrl-C goes to all processes at once and is the supervisor's alone, so that the ledger ends last.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    ended = threading.Event()

    def wait() -> None:
        signal.sigwait([signal.SIGTERM])
        ended.set()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    return ended


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class _Doors:
    """The loads of the processes that share the DICOM listener, as `bridge.dimse.acceptor.Loads`."""

    board: StatusBoard
    name: str
    all_names: Sequence[str]

    def tell(self, connections: int, admitted: int) -> None:
        self.board.load(self.name, connections, admitted)

    def all(self) -> Sequence[tuple[int, int]]:
        return self.board.loads(self.all_names)


def _dimse(
    settings: Settings,
    keystore: Keystore,
    listener: socket.socket,
    board: StatusBoard,
    name: str,
    doors: Sequence[str],
) -> None:
    ended = _until_terminated()
    from bridge.dimse.acceptor import Acceptor, AcceptorSettings

    accepting = threading.Event()
    node = Node(settings, keystore, name, beat=lambda: board.beat(name, accepting.is_set()))
    acceptor = Acceptor(
        AcceptorSettings(ae_title=settings.dimse.ae_title, associations=settings.dimse.max_associations),
        node.store,
        partial(_authorise, node, settings),
        listener=listener,
        loads=_Doors(board, name, doors),
    )
    acceptor.start()
    accepting.set()
    board.beat(name, True)
    ended.wait()
    board.beat(name, False)
    acceptor.stop(drain_s=10.0)
    node.close()


def _authorise(node: Node, settings: Settings, calling: str, address: str) -> Actor:
    """As `devices.authorise`; whoever is refused is recorded as a failed login."""
    try:
        return devices.authorise(settings.dimse.peers, calling, address)
    except AccessError as error:
        node.access.unrecognised(error, address, title=calling.strip(" "))
        raise


def _web(
    settings: Settings,
    keystore: Keystore,
    listener: socket.socket,
    members: _MembersDoor | None,
    board: StatusBoard,
    processes: Sequence[str],
    keys_are_new: bool,
) -> None:
    import uvicorn

    module, _, factory = WEB_APP.partition(":")
    create_app = getattr(importlib.import_module(module), factory)
    accepting = threading.Event()
    node = Node(
        settings,
        keystore,
        WEB,
        not_ready=board.reasons,
        late=board.spared,
        beat=lambda: board.beat(WEB, accepting.is_set()),
        follows=True,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(node),
            http="httptools",
            loop="uvloop",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # dicomweb.origin judges forwarding headers
            timeout_graceful_shutdown=10,
        )
    )
    node.ending = lambda: server.should_exit  # so that streams end instead of being waited for
    start_stop.started(node, processes, keys_are_new=keys_are_new)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises it again when drained: not to end before the node
        signal.signal(number, lambda *_: None)
    forward = _forwarder(settings, keystore, node)
    listening = _members_listener(node, members)
    commander = control.ControlServer(settings.home / "run" / "cairn.sock", partial(commands.perform, node))
    threading.Thread(target=_when_started, args=(server, accepting, board), daemon=True).start()
    server.run(sockets=[listener])
    board.beat(WEB, False)
    if listening is not None:
        listening.stop()
    commander.close()
    start_stop.stopped(node)
    if forward is not None:
        forward.stop()
    node.close()


class _MembersDoor(NamedTuple):
    """What the members' listener needs, made and checked before anything is forked."""

    listener: socket.socket
    context: ssl.SSLContext
    names: Mapping[bytes, str]


def _members_door(settings: Settings) -> _MembersDoor | None:
    """The members' socket and TLS context; None when no certificate is set. Raises ConfigError."""
    members = settings.members
    if members.peers:
        from bridge.witnesses import peers

        peers(settings)
    if members.certificate is None:
        return None
    from bridge.members_listener import member_names, tls_context

    return _MembersDoor(
        listen(members.host, members.port, "members'"),
        tls_context(members),
        member_names(members),
    )


def _members_listener(node: Node, door: _MembersDoor | None) -> MembersListener | None:
    """The members' listener, started; None when there is none."""
    if door is None:
        return None
    from bridge.members_listener import MembersListener

    listening = MembersListener(door.listener, door.context, door.names, node)
    listening.start()
    return listening


def _forwarder(settings: Settings, keystore: Keystore, node: Node) -> Forwarder | None:
    """The thread that tells the audit repository of every event, started; None when no repository is configured."""
    audit = settings.audit
    if audit.repository_host is None:
        return None
    from bridge.audit_forwarding.forwarder import Forwarder
    from bridge.audit_forwarding.position import PositionFile
    from bridge.audit_forwarding.syslog_tls import Repository

    repository = Repository(audit.repository_host, audit.repository_port, audit.ca_file, audit.certificate, audit.key)
    own = None if node.consortium is None else own_node(node.consortium, keystore).id
    source = Source(socket.gethostname(), settings.dimse.ae_title, origin_of(settings, keystore), own)
    forward = Forwarder(node.audit, repository, PositionFile(audit.spool or settings.home / "audit-spool"), source)
    forward.start()
    return forward


def _when_started(server: Any, accepting: threading.Event, board: StatusBoard) -> None:
    """Tell the board as soon as uvicorn accepts: it offers a flag, not a callback, when no lifespan runs."""
    waiting = threading.Event()
    while not server.started and not server.should_exit:
        waiting.wait(0.01)
    accepting.set()
    board.beat(WEB, True)


def _ledger(settings: Settings, keystore: Keystore, board: StatusBoard) -> None:
    ended = _until_terminated()
    from bridge.sealing_process import run

    run(settings, keystore, ended, lambda opened: board.beat(LEDGER, opened))


def _content(settings: Settings, keystore: Keystore, board: StatusBoard) -> None:
    ended = _until_terminated()
    from bridge.content_process import run

    run(settings, keystore, CONTENT, ended, lambda: board.beat(CONTENT, True))


def _members(settings: Settings, keystore: Keystore, board: StatusBoard) -> None:
    ended = _until_terminated()
    from bridge.members_process import run

    run(settings, keystore, MEMBERS, ended, lambda: board.beat(MEMBERS, True))


def _announce(settings: Settings, keystore: Keystore, *, first: bool, sample: bool, say: Say) -> None:
    """What a newcomer sees: the sample (once), the viewer's link, the root, and how to send an image."""
    web = f"http://{settings.web.host}:{settings.web.port}"
    port, title = settings.dimse.port, settings.dimse.ae_title
    if settings.members.certificate is not None:
        say(f"members     https://{settings.members.host}:{settings.members.port}   (mutual TLS; /ipfs/ alone)")
    if keystore.protection == "unprotected":
        say(f"keys        unlocked by {settings.home / 'keys' / 'unlock'} (unprotected: see docs/operations.md)")
    if settings.access.anonymous_role is not None:
        say(f"WARNING     requests from this machine need NO credential: they act as {settings.access.anonymous_role}")
    if sample and (_asked(settings, "status", {}, say) or {}).get("instances") == 0:
        say("sample      sending a CT phantom, a colour multi-frame and a report over the DICOM network")
        subprocess.run([sys.executable, "-m", "bridge.sample.send", settings.dimse.host, str(port), title], check=False)
    if first or sample:
        link = _asked(settings, "login-link", {"name": "first-start", "role": "admin"}, say)
        url = link["url"] if link else f"{web}/ohif/"
        say(f"viewer      {url}   (once, within 10 minutes; again: cairn login-link)")
    say(f"DICOMweb    {web}/dicom-web   (credential: cairn token create --role viewer)")
    say(
        f"DICOM       {title} on {settings.dimse.host}:{port}"
        f"   (send: storescu -aec {title} {settings.dimse.host} {port} FILE)"
    )
    say(f"data        {settings.home}")
    say("ready")


def _asked(settings: Settings, command: str, arguments: dict[str, str], say: Say) -> dict[str, Any] | None:
    """What the web process answers; None when it has just ended: it is started again, and the node goes on."""
    try:
        answer: dict[str, Any] = control.ask(settings.home / "run" / "cairn.sock", command, arguments, say)
    except (control.Failed, OSError) as error:
        log.warning("not announced in full: %s", error)
        return None
    return answer
