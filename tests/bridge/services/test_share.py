"""A study from grant to receipt and to its end, among hospitals in one process; what is forged or stale is refused."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.config import Replication
from bridge.content.car_transfer import export_car
from bridge.content.copies import PackCopy
from bridge.crypto import study_key_file
from bridge.crypto.hpke import Recipient
from bridge.dicom.attributes import Level
from bridge.dicom.matching import Query
from bridge.errors import (
    Busy,
    CarInvalid,
    ContentMissing,
    EngineFault,
    Forbidden,
    NotFound,
    RequestError,
    StorageFault,
    StorageFull,
)
from bridge.index.assignments import Assignment
from bridge.member_lanes import MemberLanes
from bridge.model import OPERATOR, Actor, ActorKind, StudyKey
from bridge.node import Node
from bridge.services import scrub as scrubbing
from bridge.services import share
from bridge.services.deliver_share import deliver, package
from bridge.services.end_share import end_shares
from bridge.services.fixity import check_all
from bridge.services.follow_shares import follow
from bridge.services.fsck import fsck
from bridge.services.receive_share import Receiver, take_in
from bridge.services.scrub import Scrub
from bridge.services.share import Sharing
from bridge.share_model import Given, Received
from bridge.sharing import ending_of, receiver_of
from ledger.terms import SHARE_REFUSALS
from ledger.types import PURPOSES
from tests.bridge.consortium_in_memory import Consortium, Hospital, Listener
from tests.bridge.services.conftest import SENDER, VIEWER, instance, part10, recorded

STUDY = "1.2.826.0.1.3680043.8.498.91"
TABLES = ("patient", "study", "series", "instance", "instance_data", "tree", "study_page", "block", "pin")


class Desk:
    """The members' process of one hospital, stepped by the test."""

    def __init__(self, hospital: Hospital) -> None:
        self.node = hospital.node
        assert self.node.sharing is not None
        self.sharing = self.node.sharing
        self.receiver: Receiver = receiver_of(self.node, self.sharing)
        self.ending = ending_of(self.node, self.receiver)

    def step(self) -> None:
        for work in (
            lambda: follow(self.sharing, self.node.index.followed),
            lambda: end_shares(self.ending),
            lambda: deliver(self.sharing),
            lambda: take_in(self.receiver),
        ):
            with contextlib.suppress(StorageFault):  # tried again by the next step
                work()


class Members:
    """Three hospitals: h0 gives, h1 receives, h2 is another."""

    def __init__(self, folder: Path) -> None:
        self.consortium = Consortium(folder, [Replication()] * 3)
        self.desks = {name: Desk(one) for name, one in self.consortium.hospitals.items()}
        self.giver, self.receiver, self.other = (self.desks[name].node for name in ("h0", "h1", "h2"))

    def settle(self, rounds: int = 4) -> None:
        for _ in range(rounds):
            self.consortium.seal()
            for name, desk in self.desks.items():
                if not self.consortium.hospitals[name].down:
                    desk.step()
            self.consortium.clock.pass_by(0.2)
        self.consortium.seal()

    def store(self, numbers: range, node: Node | None = None, **given: Any) -> None:
        with (node or self.giver).store.reception(SENDER) as reception:
            for number in numbers:
                incoming = reception.begin()
                made = instance(study=STUDY, series=f"{STUDY}.1", sop=f"{STUDY}.1.{number}", fill=number, **given)
                incoming.write(part10(made))
                incoming.commit()

    def grant(self, to: str = "h1", expires: str | None = None, *, settle: bool = True) -> bytes:
        sharing = self.desks["h0"].sharing
        root = None

        def sealed(root_: bytes, final: bool) -> bytes | None:
            nonlocal root
            root = root_
            self.consortium.seal()
            return self.consortium.hospitals["h0"].made(root_, final)

        self.giver.statements._made = sealed
        until = None if expires is None else self.consortium.clock() + int(expires[:-1]) * 3600 * 1_000_000
        grant = share.grant(sharing, OPERATOR, STUDY, to, "TREAT", until)
        if settle:
            self.settle()
        return grant

    def revoke(self, grant: bytes) -> None:
        share.revoke(self.desks["h0"].sharing, OPERATOR, grant)

    def given(self, grant: bytes) -> Given:
        found = self.giver.index.shares.given(grant)
        assert found is not None
        return found

    def received(self, grant: bytes, name: str = "h1") -> Received:
        found = self.desks[name].node.index.shares.received(grant)
        assert found is not None
        return found


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    found = Members(tmp_path)
    yield found
    found.consortium.close()


def studies(node: Node) -> list[str]:
    return [match["0020000D"]["Value"][0] for match in node.search(Query(Level.STUDY)).matches]  # type: ignore[index]


def content(node: Node) -> dict[str, list[Any]]:
    """What a node has of studies, and the keys of others."""
    found = {}
    for name, database in [(table, "index.db") for table in TABLES] + [("study_key", "keys/keys.db")]:
        with closing(sqlite3.connect(node.settings.home / database)) as connection:
            found[name] = connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall()
    own = node.keystore.node_id
    found["study_key"] = [row for row in found["study_key"] if row[1] != own]
    return found


def part10_of(node: Node, number: int) -> bytes:
    (stored,) = node.retrieve.locate(STUDY, f"{STUDY}.1", f"{STUDY}.1.{number}")
    viewing = node.access.view(VIEWER, STUDY, "TREAT")
    return b"".join(node.retrieve.part10(viewing, stored))


def types(members: Members, ref: bytes) -> list[str]:
    return [final.entry.type for final in members.consortium.entries if ref in final.entry.refs]


def test_a_granted_study_is_the_receivers_own_to_find_and_open_and_the_receipt_is_on_the_ledger(
    members: Members,
) -> None:
    members.store(range(3))
    grant = members.grant()
    assert studies(members.receiver) == [STUDY]
    assert studies(members.other) == []
    for number in range(3):
        assert part10_of(members.receiver, number) == part10_of(members.giver, number)
    given, received = members.given(grant), members.received(grant)
    assert (given.state, received.state, received.instances) == ("delivered", "held", 3)
    assert given.receipt is not None and members.consortium.hospitals["h0"].entry(given.receipt) is not None
    assert types(members, grant)[:2] == ["study.import", "share.receipt"]
    (own,), (theirs,) = members.giver.index.trees.of_study(STUDY), members.receiver.index.trees.of_study(STUDY)
    assert (theirs.root, theirs.tag, theirs.origin) == (own.root, own.tag, members.giver.keystore.node_id)
    assert list((members.receiver.settings.home / "incoming").iterdir()) == []
    (entry,) = members.consortium.of_type("consent.grant")
    assert entry.entry.terms["to"] == members.consortium.members["h1"].node and entry.entry.study == own.tag


def test_an_access_to_a_received_study_names_its_grant_under_the_givers_tag(members: Members) -> None:
    members.store(range(1))
    grant = members.grant()
    assert part10_of(members.receiver, 0)
    members.receiver.access.close_all()
    members.consortium.seal()
    (tree,) = members.giver.index.trees.of_study(STUDY)
    (access,) = [one.entry for one in members.consortium.of_type("study.access") if grant in one.entry.refs]
    assert (access.study, access.node) == (tree.tag, members.consortium.members["h1"].node)
    # a study that it has images of itself is its own, and the grant is named all the same
    members.store(range(1, 2), members.receiver)
    assert part10_of(members.receiver, 1)
    members.receiver.access.close_all()
    members.consortium.seal()
    _, also = [one.entry for one in members.consortium.of_type("study.access") if grant in one.entry.refs]
    assert also.study == members.receiver.keys.study_key(STUDY).tag
    members.revoke(grant)
    members.settle()
    assert [body["study"] for body in recorded(members.receiver, "study.access") if "study" in body] == [STUDY] * 2


def test_nothing_is_given_before_the_grant_is_final(members: Members) -> None:
    members.store(range(1))
    sharing = members.desks["h0"].sharing
    entry = bytes(32)
    hospital = members.consortium.hospitals["h0"]
    hospital.node.statements._made = lambda root, final: None if final else entry  # sealed, and consensus is away
    grant = share.grant(sharing, OPERATOR, STUDY, "h1", "TREAT", None)
    members.desks["h0"].step()
    members.desks["h1"].step()
    assert members.given(grant).state == "waiting"
    assert members.giver.index.assignments.all() == []
    assert members.receiver.index.shares.all_received() == []


def test_a_revoked_study_is_gone_at_the_receiver_with_its_keys_and_what_it_added_stays(members: Members) -> None:
    empty = content(members.receiver)
    members.store(range(3))
    grant = members.grant()
    report = instance(study=STUDY, series=f"{STUDY}.9", sop=f"{STUDY}.9.1", name="Roe^Jane")
    with members.receiver.store.reception(SENDER) as reception:
        incoming = reception.begin()
        incoming.write(part10(report))
        incoming.commit()
    members.revoke(grant)
    assert members.giver.index.assignments.all() == []  # at once
    members.settle()
    assert [stored.key.sop for stored in members.receiver.retrieve.locate(STUDY)] == [f"{STUDY}.9.1"]
    with pytest.raises(NotFound):
        members.receiver.retrieve.locate(STUDY, f"{STUDY}.1", f"{STUDY}.1.0")
    after = content(members.receiver)
    assert after["study_key"] == empty["study_key"] == []
    assert len(after["tree"]) == 1 and after["pin"] == []
    given, received = members.given(grant), members.received(grant)
    assert (given.state, received.state, received.why) == ("revoked", "ended", "revoked")
    assert received.package is None and given.gone is not None
    assert types(members, grant)[-2:] == ["consent.revoke", "share.end"]
    with pytest.raises(RequestError):
        members.revoke(grant)


def test_of_a_study_that_was_only_received_nothing_is_left(members: Members) -> None:
    empty = content(members.receiver)
    members.store(range(2))
    members.revoke(members.grant())
    members.settle()
    assert content(members.receiver) == empty
    assert studies(members.receiver) == []
    # and the receiver's own records of what happened can still be read
    assert [body.get("study") for body in recorded(members.receiver, "study.import")] == [STUDY] * 3
    assert recorded(members.receiver, "share.end")[0]["study"] == STUDY
    assert fsck(members.receiver, lambda text: None) == []


def test_what_comes_after_a_revocation_is_sealed_under_another_generation_of_the_key(members: Members) -> None:
    members.store(range(1))
    former = members.giver.keys.study_key(STUDY)
    grant = members.grant()
    members.revoke(grant)
    members.settle()
    members.store(range(1, 2))
    assert members.giver.keys.study_key(STUDY).generation == former.generation + 1
    assert members.giver.index.trees.generations(former.tag) == [0, 1]
    again = members.grant()
    assert studies(members.receiver) == [STUDY]
    assert part10_of(members.receiver, 1) == part10_of(members.giver, 1)
    assert members.received(again).instances == 2


def test_images_that_come_later_follow_under_a_live_grant_and_only_they_are_fetched(
    members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    members.store(range(3))
    grant = members.grant()
    first = members.received(grant).octets
    members.store(range(3, 4))
    members.settle()
    assert len(members.receiver.retrieve.locate(STUDY)) == 4
    assert part10_of(members.receiver, 3) == part10_of(members.giver, 3)
    received = members.received(grant)
    assert received.state == "held" and first is not None and received.octets is not None
    assert received.octets < first
    assert types(members, grant).count("share.receipt") == 2


def test_a_grant_ends_by_itself_when_its_time_is_over(members: Members) -> None:
    members.store(range(1))
    generation = members.giver.keys.study_key(STUDY).generation
    grant = members.grant(expires="2h")
    assert studies(members.receiver) == [STUDY]
    members.consortium.clock.pass_by(7201)
    members.settle()
    assert studies(members.receiver) == []
    assert (members.given(grant).state, members.received(grant).why) == ("expired", "expired")
    assert members.giver.index.assignments.all() == []
    assert members.giver.keys.study_key(STUDY).generation == generation + 1
    assert types(members, grant)[-1] == "share.end"


def test_a_grant_ends_at_its_time_at_the_receiver_though_its_giver_is_down(members: Members) -> None:
    empty = content(members.receiver)
    members.store(range(2))
    generation = members.giver.keys.study_key(STUDY).generation
    grant = members.grant(expires="2h")
    members.consortium.hospitals["h0"].down = True
    members.consortium.clock.pass_by(7190)
    members.settle(1)
    assert studies(members.receiver) == [STUDY]
    members.consortium.clock.pass_by(10)
    members.settle(2)
    assert studies(members.receiver) == [] and content(members.receiver) == empty  # its keys too
    assert types(members, grant)[-1] == "share.end" and members.given(grant).state == "delivered"
    members.consortium.hospitals["h0"].down = False
    members.settle()
    given = members.given(grant)
    assert (given.state, given.gone is not None) == ("expired", True)
    assert members.giver.keys.study_key(STUDY).generation == generation + 1


def test_a_study_that_both_hold_stays_each_ones_own(members: Members) -> None:
    members.store(range(2))
    members.store(range(1), members.receiver)
    grant = members.grant()
    own, theirs = members.receiver.index.trees.of_study(STUDY)
    assert own.origin is None and theirs.origin == members.giver.keystore.node_id
    members.revoke(grant)
    members.settle()
    assert [stored.key.sop for stored in members.receiver.retrieve.locate(STUDY)] == [f"{STUDY}.1.0"]
    (left,) = members.receiver.index.trees.of_study(STUDY)
    assert left.tag == own.tag


def test_what_this_hospitals_own_modality_sends_again_stays_after_the_revocation(members: Members) -> None:
    members.store(range(2))
    grant = members.grant()
    members.store(range(1), members.receiver)
    members.revoke(grant)
    members.settle()
    assert [stored.key.sop for stored in members.receiver.retrieve.locate(STUDY)] == [f"{STUDY}.1.0"]
    assert part10_of(members.receiver, 0) == part10_of(members.giver, 0)


def test_of_two_grants_of_a_study_the_one_that_lives_keeps_it(members: Members) -> None:
    members.store(range(1))
    first, second = members.grant(expires="1h"), members.grant(expires="2h")
    (assignment,) = members.giver.index.assignments.all()
    assert assignment.expires == members.given(second).expires
    members.revoke(first)
    members.settle()
    assert members.received(first).state == "ended"
    assert studies(members.receiver) == [STUDY] and part10_of(members.receiver, 0)
    assert len(members.giver.index.assignments.all()) == 1
    members.revoke(second)
    members.settle()
    assert studies(members.receiver) == [] and members.giver.index.assignments.all() == []


def test_a_member_that_is_away_gets_it_when_it_is_back(members: Members) -> None:
    members.store(range(1))
    members.consortium.hospitals["h1"].down = True
    grant = members.grant()
    given = members.given(grant)
    assert given.state == "granted" and given.tries > 1 and given.fault is not None
    members.consortium.hospitals["h1"].down = False
    members.consortium.clock.pass_by(300)
    members.settle()
    assert studies(members.receiver) == [STUDY]
    assert members.given(grant).fault is None


def test_a_receiver_without_room_says_so_and_goes_on_when_there_is(members: Members) -> None:
    members.store(range(2))
    desk = members.desks["h1"]
    whole = desk.receiver
    desk.receiver = replace(whole, most=2_000)
    grant = members.grant()
    received = members.received(grant)
    assert received.state == "offered" and "room" in (received.fault or "")
    assert studies(members.receiver) == []
    desk.receiver = whole
    members.consortium.clock.pass_by(300)
    members.settle()
    assert studies(members.receiver) == [STUDY]


def test_a_package_that_is_refused_at_the_door_is_told_of_and_not_brought_again_at_once(
    members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    members.store(range(1))
    asked: list[str] = []

    def refusing(listener: Listener, method: str, path: str, body: object = None) -> Any:
        asked.append(path)
        raise ContentMissing("member h1 does not give this (403): the grant is to another member")

    monkeypatch.setattr(Listener, "ask", refusing)
    grant = members.grant()
    for _ in range(10):
        members.consortium.clock.pass_by(30)
        members.settle(1)
    assert asked == ["/consortium/shares"] and "403" in (members.given(grant).fault or "")
    monkeypatch.undo()
    members.consortium.clock.pass_by(600)
    members.settle()
    assert members.given(grant).state == "delivered" and members.given(grant).fault is None


@pytest.mark.parametrize("study", ["unknown", "theirs"])
def test_only_what_is_this_nodes_own_is_given(members: Members, study: str) -> None:
    members.store(range(1))
    members.grant()
    sharing = members.desks["h1"].sharing
    named, error = (STUDY, RequestError) if study == "theirs" else ("1.2.3", NotFound)
    with pytest.raises(error):
        share.grant(sharing, OPERATOR, named, "h2", "TREAT", None)


@pytest.mark.parametrize(
    ("to", "purpose", "expires", "error"),
    [
        ("h9", "TREAT", None, RequestError),
        ("h0", "TREAT", None, RequestError),
        ("h1", "treat", None, RequestError),
        ("h1", "ETREAT", None, RequestError),
        ("h1", "BTG", None, RequestError),
        ("h1", "TREATMENT", None, RequestError),
        ("h1", "", None, RequestError),
        ("h1", "TREAT", 1, RequestError),
    ],
)
def test_a_grant_that_cannot_be_is_refused_and_not_on_the_ledger(
    members: Members, to: str, purpose: str, expires: int | None, error: type[Exception]
) -> None:
    members.store(range(1))
    with pytest.raises(error):
        share.grant(members.desks["h0"].sharing, OPERATOR, STUDY, to, purpose, expires)
    members.consortium.seal()
    assert members.consortium.of_type("consent.grant") == []


def test_a_purpose_that_is_none_is_answered_with_those_that_are_and_the_page_names_them(members: Members) -> None:
    members.store(range(1))
    with pytest.raises(RequestError) as refused:
        share.grant(members.desks["h0"].sharing, OPERATOR, STUDY, "h1", "PROFIT", None)
    allowed = ("TREAT", "HOPERAT", "HPAYMT", "HRESCH", "PATRQT", "PUBHLTH")
    assert refused.value.detail.endswith(": " + ", ".join(allowed)) and allowed == share.PURPOSES_OF_GRANTS
    page = (Path(__file__).parents[3] / "docs" / "sharing.md").read_text("utf-8")
    assert all(f"| `{code}` | {PURPOSES[code]} |" in page for code in allowed)


def test_a_retired_member_is_given_nothing(members: Members) -> None:
    members.store(range(1))
    members.consortium.retire("h1")
    with pytest.raises(RequestError):
        members.grant()


def test_a_member_that_was_retired_is_told_so_when_it_would_give(members: Members) -> None:
    members.store(range(1))
    members.consortium.retire("h0")
    with pytest.raises(RequestError, match="this hospital was retired"):
        members.grant()
    assert not members.consortium.of_type("consent.grant")


def test_a_grant_whose_row_was_lost_is_found_again_on_the_ledger(members: Members) -> None:
    members.store(range(1))
    members.consortium.hospitals["h1"].down = True
    grant = members.grant()
    with closing(sqlite3.connect(members.giver.settings.home / "index.db")) as db:
        db.execute("DELETE FROM share_out")
        db.execute("DELETE FROM follow")
        db.commit()
    members.consortium.hospitals["h1"].down = False
    members.settle()
    assert members.given(grant).state == "delivered"
    assert studies(members.receiver) == [STUDY]


def test_an_interrupted_revocation_is_completed(members: Members) -> None:
    members.store(range(1))
    grant = members.grant()
    shares = members.giver.index.shares
    assert shares.let(members.given(grant), state="revoking", ended=members.consortium.clock())
    members.consortium.clock.pass_by(60)
    members.settle()
    assert members.given(grant).state == "revoked" and members.given(grant).gone is not None
    assert studies(members.receiver) == []


def refused(node: Node) -> bool:
    """Whether a refused share is on record, as it is within a second."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        node.access.flush()
        told = [str(item) for body in recorded(node, "access.refused") for item in body["items"]]
        if any("a share:" in item for item in told):
            return True
        time.sleep(0.05)
    return False


def forgotten_at(members: Members, grant: bytes) -> Callable[[bytes], None]:
    """Ends a grant once, when it is called."""
    left = [grant]

    def end(cid: bytes) -> None:
        if left:
            members.revoke(left.pop())
            members.settle()

    return end


def test_a_share_that_is_forgotten_while_the_scrub_reads_its_tree_is_no_finding(
    members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    members.store(range(3))
    grant, node = members.grant(), members.receiver
    end, scrub = forgotten_at(members, grant), Scrub(node, lambda: 1_900_000_000_000_000)
    monkeypatch.setattr(scrubbing, "STEP_BLOCKS", 1)
    assert scrub.step() == scrubbing.PAUSE_S  # the root was read, and links to what is forgotten now
    end(b"")
    assert list(node.index.trees.every()) == []
    while scrub._reading is not None:
        scrub.step()
    assert recorded(node, "content.scrub") == [] and node.index.scrub.lost() == []


def test_a_share_that_is_forgotten_while_fsck_reads_its_tree_is_no_finding(
    members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    members.store(range(3))
    grant, node = members.grant(), members.receiver
    end = forgotten_at(members, grant)
    read = PackCopy.read

    def ended(copy: PackCopy, cid: bytes) -> bytes:
        data = read(copy, cid)
        end(cid)
        return data

    monkeypatch.setattr(PackCopy, "read", ended)
    told: list[str] = []
    assert check_all(node, told.append).wrong == 0
    assert "no finding" in told[-1] and node.index.scrub.lost() == []
    (said,) = recorded(node, "content.scrub")
    assert (said["trees"], said["wrong"]) == (0, 0)


class Forgery:
    """What a hostile member can send: packages made by its own hand, correctly sealed and signed by whom it likes."""

    def __init__(self, members: Members) -> None:
        self.members = members
        members.store(range(2))
        members.consortium.hospitals["h1"].down = True  # the genuine package does not arrive
        self.grant = members.grant()
        members.consortium.hospitals["h1"].down = False
        self.given = members.given(self.grant)
        assert self.given.state == "granted"
        sharing = members.desks["h0"].sharing
        root = members.giver.index.trees.of_study(STUDY)[0].root
        assert root is not None
        self.genuine = package(sharing, self.given, root, members.consortium.members["h1"])
        self.envelope = study_key_file.read(self.genuine)
        self.keys = [members.giver.keys.study_key(STUDY)]

    def made(self, by: str = "h0", to: str = "h1", **changes: Any) -> bytes:
        hospital = self.members.consortium.hospitals[by]
        keystore = hospital.node.keystore
        values: dict[str, Any] = {
            "sender": keystore.node_id,
            "sender_key": hospital.member.card.key,
            "origin": keystore.node_id,
            "log": f"cairn/{keystore.node_id.hex()}",
            **changes,
        }
        recipient = self.members.consortium.members[to].card.recipient
        signer: Ed25519PrivateKey = hospital.signer
        envelope = replace(self.envelope, sealed=b"", **values)
        keys = [key._replace(tag=envelope.tag) for key in self.keys]
        return study_key_file.write(envelope, keys, Recipient(recipient[:16], recipient[16:]), signer)

    def brought(self, data: bytes, by: str = "h0") -> str:
        actor = Actor(ActorKind.PEER, by, None, "192.0.2.7", "members")
        return self.members.receiver.accept_share(actor, data)


@pytest.fixture
def forgery(members: Members) -> Forgery:
    return Forgery(members)


FORGED: dict[str, tuple[Callable[[Forgery], bytes], str]] = {
    "it is no package": (lambda f: b"not a package", "h0"),
    "a flipped bit": (lambda f: f.genuine[:-1] + bytes([f.genuine[-1] ^ 1]), "h0"),
    "another member brings the genuine one": (lambda f: f.genuine, "h2"),
    "another member's own package under this grant": (lambda f: f.made("h2"), "h2"),
    "signed by another than the sender it names": (
        lambda f: f.made("h2", sender=f.envelope.sender, origin=f.envelope.origin),
        "h0",
    ),
    "keys of another origin": (lambda f: f.made(origin=b"another node 16b"), "h0"),
    "sealed to another member": (lambda f: f.made(to="h2"), "h0"),
    "without a grant": (lambda f: f.made(grant=None), "h0"),
    "of another study tag": (lambda f: f.made(tag=b"another tag 16 b"), "h0"),
    "of somebody who is no member": (lambda f: f.genuine, "h9"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_or_mismatched_package_is_refused_and_leaves_nothing_but_a_record(forgery: Forgery, name: str) -> None:
    members = forgery.members
    make, by = FORGED[name]
    data, before = make(forgery), content(members.receiver)
    rows = members.receiver.index.shares.all_received()
    with pytest.raises(Forbidden):
        forgery.brought(data, by)
    assert content(members.receiver) == before
    assert members.receiver.index.shares.all_received() == rows
    assert refused(members.receiver)
    assert forgery.brought(forgery.genuine) == "offered"  # and does not stand in the way of the genuine one


@pytest.mark.parametrize("kind", ["to another", "of another", "no grant"])
def test_a_package_under_an_entry_that_is_no_grant_to_this_node_is_refused(forgery: Forgery, kind: str) -> None:
    members = forgery.members
    if kind == "to another":
        entry = members.grant("h2", settle=False)
    elif kind == "of another":
        statements, sharing = members.other.statements, members.desks["h2"].sharing
        key = sharing.keys.study_key(STUDY)._replace(tag=forgery.given.tag)
        to = members.consortium.members["h1"].node
        root = statements.make("consent.grant", OPERATOR, {"to": to}, study=key, purpose="TREAT")
        members.consortium.seal()
        found = members.consortium.hospitals["h2"].made(root, True)
        assert found is not None
        entry = found
    else:
        entry = next(final.id for final in members.consortium.entries if final.entry.type != "consent.grant")
    with pytest.raises(Forbidden):
        forgery.brought(forgery.made(grant=entry))
    assert studies(members.receiver) == []


def stolen(forgery: Forgery, tag: bytes, root: bytes, keys: list[StudyKey], *, settle: bool) -> bytes:
    """h2 grants h1 a tag that it only read on the ledger, and brings a package of its own under it; the grant."""
    members = forgery.members
    key = members.desks["h2"].sharing.keys.study_key(STUDY)._replace(tag=tag)
    to = members.consortium.members["h1"].node
    root_ = members.other.statements.make("consent.grant", OPERATOR, {"to": to}, study=key, purpose="TREAT")
    members.consortium.seal()
    grant = members.consortium.hospitals["h2"].made(root_, True)
    assert grant is not None
    forgery.keys = keys
    of = members.other.keystore.node_id
    data = forgery.made("h2", grant=grant, tag=tag, root=root, sender=of, origin=of)
    assert forgery.brought(data, "h2") == "offered"
    for _ in range(4 if settle else 0):
        members.consortium.clock.pass_by(10)
        members.settle()
    return grant


def revoked_by_h2(members: Members, grant: bytes) -> None:
    members.other.statements.make("consent.revoke", OPERATOR, None, [grant])
    members.settle()


@pytest.mark.parametrize("settle", [True, False])
@pytest.mark.parametrize("tag", ["this node's own", "nobody's"])
def test_a_grant_that_names_a_root_of_this_node_unpins_nothing_when_it_ends(
    forgery: Forgery, tag: str, settle: bool
) -> None:
    """Whoever was given a study knows its root; as the root of a grant it stands for nothing."""
    members = forgery.members
    members.store(range(7, 8), members.receiver)
    (own,) = members.receiver.index.trees.of_study(STUDY)
    assert own.root is not None
    members.receiver.content.pin(own.root)
    keys = [members.other.keys.study_key(STUDY)]
    grant = stolen(forgery, own.tag if tag == "this node's own" else b"tag of nobody 16", own.root, keys, settle=settle)
    revoked_by_h2(members, grant)
    assert members.received(grant).state == ("refused" if settle else "ended")
    assert members.receiver.index.pins.of(own.root) is not None
    assert part10_of(members.receiver, 7)


@pytest.mark.parametrize("settle", [True, False])
def test_a_study_that_one_member_gave_is_not_touched_by_another_that_claims_its_tag(
    forgery: Forgery, settle: bool
) -> None:
    members = forgery.members
    members.consortium.clock.pass_by(300)
    members.settle()
    assert studies(members.receiver) == [STUDY]
    (held,) = members.receiver.index.trees.of_study(STUDY)
    before = content(members.receiver)
    root = held.root
    assert root is not None
    grant = stolen(forgery, held.tag, root, [members.other.keys.study_key(STUDY)], settle=settle)
    assert members.received(grant).state == ("refused" if settle else "offered")
    assert content(members.receiver) == before
    revoked_by_h2(members, grant)
    assert content(members.receiver) == before and part10_of(members.receiver, 1) == part10_of(members.giver, 1)
    assert members.received(forgery.grant).state == "held"


def test_a_package_under_an_entry_that_is_not_final_here_comes_too_early(forgery: Forgery) -> None:
    with pytest.raises(Busy):
        forgery.brought(forgery.made(grant=bytes(32)))


def test_a_package_replayed_after_the_revocation_is_refused(forgery: Forgery) -> None:
    members = forgery.members
    members.consortium.clock.pass_by(300)
    members.settle()
    assert studies(members.receiver) == [STUDY]
    assert forgery.brought(forgery.genuine) == "held"  # an earlier one: nothing changes
    members.revoke(forgery.grant)
    members.settle()
    before = content(members.receiver)
    with pytest.raises(Forbidden, match="ended"):
        forgery.brought(forgery.genuine)
    members.settle()
    assert content(members.receiver) == before and studies(members.receiver) == []


def test_packages_of_former_states_brought_again_change_nothing_and_leave_no_entry(forgery: Forgery) -> None:
    """Replayed as they were they come too late; made anew, as a giver can, they bring nothing."""
    members = forgery.members
    members.consortium.clock.pass_by(300)
    members.settle()
    former = forgery.genuine
    members.store(range(2, 3))
    members.settle()
    assert len(members.receiver.retrieve.locate(STUDY)) == 3
    before, receipts = content(members.receiver), len(members.consortium.of_type("share.receipt"))
    imports = len(members.consortium.of_type("study.import"))
    with pytest.raises(Busy, match="newer"):
        forgery.brought(former)
    newest = members.received(forgery.grant).root
    for root in (forgery.envelope.root, newest, forgery.envelope.root):
        members.consortium.clock.pass_by(10)
        anew = forgery.made(made=members.consortium.clock(), log=forgery.envelope.log, root=root)
        assert forgery.brought(anew) == "offered"
        members.settle()
    assert members.received(forgery.grant).state == "held"
    assert content(members.receiver) == before
    assert len(members.consortium.of_type("share.receipt")) == receipts
    assert len(members.consortium.of_type("study.import")) == imports
    members.store(range(3, 4))
    members.settle()
    assert len(members.receiver.retrieve.locate(STUDY)) == 4


def test_a_package_that_comes_after_the_revocation_of_a_grant_never_delivered_is_refused(forgery: Forgery) -> None:
    members = forgery.members
    members.revoke(forgery.grant)
    members.settle()
    assert members.received(forgery.grant).state == "ended"
    with pytest.raises(Forbidden, match="ended"):
        forgery.brought(forgery.genuine)
    assert "share.end" not in types(members, forgery.grant)  # there was nothing to give up


def test_a_grant_whose_time_is_over_brings_nothing(members: Members) -> None:
    members.store(range(1))
    members.consortium.hospitals["h1"].down = True
    grant = members.grant(expires="1h")
    sharing = members.desks["h0"].sharing
    root = members.giver.index.trees.of_study(STUDY)[0].root
    assert root is not None
    data = package(sharing, members.given(grant), root, members.consortium.members["h1"])
    members.consortium.clock.pass_by(3601)
    with pytest.raises(Forbidden, match="over"):
        members.receiver.accept_share(Actor(ActorKind.PEER, "h0", None, "", "members"), data)


class Wrong:
    """The giver's gateway with other blocks than its manifest names, or none."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, cid: bytes) -> bytes:
        raise self.error

    def tree(self, root: bytes, file: Any, most: int) -> int:
        raise self.error


def test_blocks_that_are_not_what_they_must_be_are_refused_in_the_end_and_nothing_is_left(members: Members) -> None:
    empty = content(members.receiver)
    members.store(range(1))
    desk = members.desks["h1"]
    whole = desk.receiver
    wrong = Wrong(CarInvalid("member h0: section at byte 60 is not the block"))
    desk.receiver = replace(desk.receiver, sharing=replace(desk.sharing, listener=lambda node: wrong))
    grant = members.grant()
    for _ in range(4):
        members.consortium.clock.pass_by(10)
        members.settle()
    received = members.received(grant)
    assert received.state == "refused" and "is not the block" in (received.why or "")
    assert content(members.receiver) == empty
    assert list((members.receiver.settings.home / "incoming").iterdir()) == []
    assert refused(members.receiver)
    # the giver is told why, by an entry that says no more than that
    (receipt,) = members.consortium.of_type("share.receipt")
    assert (receipt.entry.outcome, receipt.entry.terms, receipt.entry.study) == (8, {"w": 1}, None)
    given = members.given(grant)
    assert (given.state, given.receipt, given.refused) == ("delivered", None, SHARE_REFUSALS[1])
    # again, and it is said once; then the blocks are right
    members.store(range(1, 2))
    for _ in range(4):
        members.consortium.clock.pass_by(10)
        members.settle()
    assert len(members.consortium.of_type("share.receipt")) == 1 and members.received(grant).state == "refused"
    desk.receiver = whole
    members.store(range(2, 3))
    members.settle()
    assert members.given(grant).refused is None and members.given(grant).receipt is not None
    assert members.received(grant).told is None and len(members.receiver.retrieve.locate(STUDY)) == 3


@pytest.mark.parametrize("error", [EngineFault("it stopped"), ContentMissing("404"), StorageFull("full")])
def test_what_cannot_be_fetched_now_is_tried_again(members: Members, error: Exception) -> None:
    members.store(range(1))
    desk = members.desks["h1"]
    whole = desk.receiver
    desk.receiver = replace(whole, sharing=replace(desk.sharing, listener=lambda node: Wrong(error)))
    grant = members.grant()
    received = members.received(grant)
    assert (received.state, received.fault) == ("offered", str(error)) and received.tries >= 1
    desk.receiver = whole
    members.consortium.clock.pass_by(300)
    members.settle()
    assert members.received(grant).state == "held"


def test_a_manifest_of_another_study_than_the_keys_is_refused(
    members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A giver whose package names a root of another study of its own: the tags do not agree."""
    other = f"{STUDY}.7"
    with members.giver.store.reception(SENDER) as reception:
        incoming = reception.begin()
        incoming.write(part10(instance(study=other)))
        incoming.commit()
    members.store(range(1))
    wrong = members.giver.index.trees.of_study(other)[0].root
    assert wrong is not None
    members.consortium.hospitals["h1"].down = True
    grant = members.grant()
    members.consortium.hospitals["h1"].down = False
    data = package(members.desks["h0"].sharing, members.given(grant), wrong, members.consortium.members["h1"])
    members.giver.index.shares.let(members.given(grant), state="delivered", root=wrong)
    members.giver.index.assignments.assign(Assignment("h1", other, None))
    assert members.receiver.accept_share(Actor(ActorKind.PEER, "h0", None, "", "members"), data) == "offered"
    take_in(members.desks["h1"].receiver)
    assert members.received(grant).state == "refused"
    assert studies(members.receiver) == []
    members.consortium.seal()
    assert [one.entry.terms for one in members.consortium.of_type("share.receipt")] == [{"w": 2}]


def test_ending_and_taking_in_do_not_overtake_each_other(members: Members) -> None:
    """A revocation that is followed while the blocks come ends it before anything is visible."""
    members.store(range(1))
    desk = members.desks["h1"]
    plain = desk.sharing.listener

    class Slow:
        def __init__(self, node: bytes) -> None:
            self.asked = plain(node)

        def __call__(self, cid: bytes) -> bytes:
            return self.asked(cid)

        def tree(self, root: bytes, file: Any, most: int) -> int:
            size = self.asked.tree(root, file, most)
            grant = members.giver.index.shares.all_given()[0].grant
            members.revoke(grant)
            members.consortium.seal()
            follow(desk.sharing, members.receiver.index.followed)
            end_shares(desk.ending)
            return size

    desk.receiver = replace(desk.receiver, sharing=replace(desk.sharing, listener=Slow))
    empty = content(members.receiver)
    grant = members.grant()
    members.settle()
    assert members.received(grant).state == "ended"
    assert content(members.receiver) == empty
    assert list((members.receiver.settings.home / "incoming").iterdir()) == []


def test_a_giver_that_takes_its_time_keeps_no_other_waiting(members: Members) -> None:
    """h0's gateway never ends; what h2 gives meanwhile is taken in."""
    desk, asked, over = members.desks["h1"], threading.Event(), threading.Event()
    plain, slow = desk.sharing.listener, members.consortium.members["h0"].node

    class Endless(Wrong):
        def tree(self, root: bytes, file: Any, most: int) -> int:
            asked.set()
            over.wait(60)
            raise EngineFault("it was given up")

    def listener(node: bytes) -> Any:
        return Endless(EngineFault("slow")) if node == slow else plain(node)

    desk.receiver = replace(desk.receiver, sharing=replace(desk.sharing, listener=listener))
    broken: list[bool] = []
    lanes = MemberLanes("take-in", lambda: broken.append(True))
    members.store(range(1))
    members.consortium.hospitals["h1"].down = True
    grant = members.grant()
    members.consortium.hospitals["h1"].down = False
    members.consortium.clock.pass_by(60)
    with members.other.store.reception(SENDER) as reception:
        incoming = reception.begin()
        incoming.write(part10(instance(study=f"{STUDY}.5")))
        incoming.commit()
    members.desks["h0"].step()
    take_in(desk.receiver, lanes)
    assert asked.wait(60)
    other = members.desks["h2"]
    members.other.statements._made = lambda root, final: (
        members.consortium.seal() or members.consortium.hospitals["h2"].made(root, final)  # type: ignore[func-returns-value]
    )
    second = share.grant(other.sharing, OPERATOR, f"{STUDY}.5", "h1", "TREAT", None)
    other.step()
    until = time.monotonic() + 20
    while (row := members.receiver.index.shares.received(second)) is None or row.state != "held":
        follow(desk.sharing, members.receiver.index.followed)
        other.step()
        take_in(desk.receiver, lanes)
        assert time.monotonic() < until
        time.sleep(0.01)
    assert studies(members.receiver) == [f"{STUDY}.5"] and members.received(grant).state == "offered"
    over.set()
    while members.received(grant).fault is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert broken == []


def test_the_tree_is_the_same_at_both_byte_for_byte(members: Members) -> None:
    members.store(range(2))
    members.grant()
    root = members.giver.index.trees.of_study(STUDY)[0].root
    assert root is not None
    theirs = b"".join(export_car(members.receiver.content, root))
    assert theirs == b"".join(export_car(members.giver.content, root))


FAILING = ("keys.disown", "shares.forget", "content.unpin", "statements.make", "shares.change_received")


@pytest.mark.parametrize("step", FAILING)
def test_an_end_that_is_interrupted_at_any_step_is_completed(
    members: Members, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    empty = content(members.receiver)
    members.store(range(2))
    grant = members.grant()
    members.revoke(grant)
    members.consortium.seal()
    fail_once(members.desks["h1"].sharing, step, monkeypatch)
    members.settle()
    members.consortium.clock.pass_by(5)
    members.settle()
    assert content(members.receiver) == empty
    assert members.received(grant).state == "ended"
    assert members.given(grant).gone is not None


@pytest.mark.parametrize("step", ["statements.make", "shares.change_received", "content.pin", "keys.adopt"])
def test_a_take_in_that_is_interrupted_at_any_step_is_completed(
    members: Members, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    members.store(range(2))
    fail_once(members.desks["h1"].sharing, step, monkeypatch)
    grant = members.grant()
    members.consortium.clock.pass_by(5)
    members.settle()
    assert members.received(grant).state == "held" and members.given(grant).receipt is not None
    assert part10_of(members.receiver, 1) == part10_of(members.giver, 1)
    assert fsck(members.receiver, lambda text: None) == []


def test_an_index_that_was_rebuilt_still_knows_by_whose_grant_it_holds_a_study(members: Members) -> None:
    members.store(range(1))
    grant = members.grant()
    with closing(sqlite3.connect(members.receiver.settings.home / "index.db")) as db:
        db.execute("DELETE FROM share_in")
        db.execute("DELETE FROM follow")
        db.commit()
    members.settle()
    assert members.received(grant).state == "held"
    members.revoke(grant)
    members.settle()
    assert studies(members.receiver) == [] and members.given(grant).gone is not None


def fail_once(sharing: Sharing, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one call of `step` fail as a full disk does, before anything is done."""
    part, _, name = step.partition(".")
    failing = getattr(sharing, part)
    works, failed = getattr(failing, name), []

    def once(*args: Any, **values: Any) -> Any:
        if not failed:
            failed.append(step)
            raise StorageFault("the disk failed")
        return works(*args, **values)

    monkeypatch.setattr(failing, name, once)
