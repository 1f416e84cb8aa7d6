"""What a hostile sender can put into a CAR and a key file, all of it correctly hashed, sealed and signed: refused."""

import io
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge import commands
from bridge.config import Content, Settings
from bridge.content import car, manifest, sealed_metadata
from bridge.content import cid as cids
from bridge.content.car_transfer import Car, export_car
from bridge.content.manifest import StudyRoot
from bridge.content.unixfs import TreeBuilder
from bridge.crypto import derive, study_key_file
from bridge.crypto.hpke import Recipient
from bridge.crypto.keystore import open_keystore
from bridge.crypto.study_key_file import Envelope
from bridge.dicom.attributes import Level
from bridge.dicom.matching import Query
from bridge.errors import (
    Busy,
    CarInvalid,
    ConfigError,
    ContentMissing,
    EngineFault,
    KeyFileInvalid,
    NotFound,
    RequestError,
    StorageFull,
)
from bridge.model import OPERATOR, Block, StudyKey
from bridge.node import Node
from bridge.services.metadata import open_metadata
from bridge.services.sealed_object import BlockSink, SealedObjectWriter
from tests.bridge.services.conftest import CHEAP, instance, part10, recorded

STUDY = "1.2.826.0.1.3680043.8.498.77"
FOLDER = b"\x0a\x02\x08\x01"
"""An empty directory of UnixFS, as dag-pb."""


class Blocks:
    """A store of blocks in memory, enough for sealing into."""

    def __init__(self):
        self.held = {}

    def put(self, blocks):
        self.held.update({block.cid: Block(block.cid, bytes(block.data)) for block in blocks})
        return []

    def get(self, cid):
        return self.held[cid].data


class Forger:
    """A sender that makes what it likes of the studies of a real node."""

    def __init__(self, node, recipient):
        self.node = node
        self.recipient = recipient
        self.store = Blocks()
        self.signer = Ed25519PrivateKey.from_private_bytes(node.keystore.signing_seed)
        (self.tree,) = node.index.trees.of_study(STUDY)
        self.key = node.keys.study_key(STUDY)
        self.root = manifest.decode_root(node.content.get(self.tree.root))
        self.links = manifest.decode_page(node.content.get(self.root.pages[0]))
        self.take(self.tree.root)

    def take(self, root):
        data = io.BytesIO(b"".join(export_car(self.node.content, root)))
        self.store.put(list(car.CarReader(data.read)))

    def add(self, data, codec=cids.DAG_CBOR):
        block = Block(cids.make(codec, data), data)
        self.store.put([block])
        return block.cid

    def sealed(self, key, associated, plaintext):
        sink = BlockSink(self.store)
        writer = SealedObjectWriter(sink, key, associated, "blake3")
        writer.write(plaintext)
        found = writer.finish()
        sink.flush()
        return found

    def forged(self, link, **changes):
        """The instance block of `link` with other metadata, sealed as it must be."""
        block = manifest.decode_instance(self.store.get(link))
        metadata = open_metadata(self.store, self.node.keys, link)
        encoded = sealed_metadata.encode(replace(metadata, **changes))
        associated = derive.metadata_associated_data(block.study, block.generation, block.tag)
        sealed = self.sealed(derive.metadata_key(self.key, block.tag), associated, encoded)
        return self.add(manifest.encode_instance(block._replace(metadata=sealed.root)))

    def car(self, links, *, tag=None, pages=None):
        """Root and CAR of a manifest over these links."""
        named = [self.add(manifest.encode_page(page)) for page in (pages or [links])]
        root = self.add(manifest.encode_root(StudyRoot(tag or self.tree.tag, tuple(named), None)))
        return root, self.file(root)

    def file(self, root):
        sections = [car.section_head(cid, len(data)) + data for cid, data in self.store.held.values()]
        return car.encode_header([root]) + b"".join(sections)

    def key_file(self, root, *, keys=None, signer=None, **changes):
        envelope = Envelope(
            log=f"cairn/{self.node.keystore.node_id.hex()}",
            sender=self.node.keystore.node_id,
            sender_key=(signer or self.signer).public_key().public_bytes_raw(),
            recipient=self.recipient.node,
            origin=self.node.keystore.node_id,
            tag=self.tree.tag,
            generations=(0,),
            root=root,
            made=0,
        )
        return study_key_file.write(
            replace(envelope, **changes), keys or [self.key], self.recipient, signer or self.signer
        )


def opened(home):
    return Node(Settings(home=home, content=Content(reserve_bytes=0)), open_keystore(home, cost=CHEAP), "command")


@pytest.fixture
def sender(tmp_path):
    node = opened(tmp_path / "sender")
    with node.store.reception(OPERATOR) as reception:
        for number in range(3):
            incoming = reception.begin()
            incoming.write(part10(instance(study=STUDY, series=f"{STUDY}.1", sop=f"{STUDY}.1.{number}", fill=number)))
            incoming.commit()
    yield node
    node.close()


@pytest.fixture
def receiver(tmp_path):
    node = opened(tmp_path / "receiver")
    yield node
    node.close()


@pytest.fixture
def forger(sender, receiver):
    keystore = receiver.keystore
    return Forger(sender, Recipient.of(keystore.node_id, keystore.agreement_seed))


@pytest.fixture
def take(receiver, tmp_path):
    """Imports bytes at the receiver."""

    def take(data, key=None, node=receiver, **more):
        (tmp_path / "x.car").write_bytes(data)
        arguments = {"path": str(tmp_path / "x.car"), **more}
        if key is not None:
            (tmp_path / "x.key").write_bytes(key)
            arguments["key"] = str(tmp_path / "x.key")
        return commands.perform(node, "study-import", arguments, lambda text: None)

    return take


def state(node):
    """Everything durable of a node but tokens and the like, and records: what is refused is recorded."""
    found = {path.name: path.read_bytes() for path in (node.settings.home / "packs").glob("*.car")}
    tables = ("patient", "study", "tree", "study_page", "series", "instance", "instance_data", "block", "pin")
    for name, database in [(table, "index.db") for table in tables] + [("study_key", "keys/keys.db")]:
        with closing(sqlite3.connect(node.settings.home / database)) as connection:
            found[name] = connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall()
    return found


def studies(node):
    return [match["0020000D"]["Value"][0] for match in node.search(Query(Level.STUDY)).matches]


@pytest.fixture
def refused(receiver, take):
    """Asserts that an import is refused and leaves nothing but a record of that; what the error says."""

    def refused(error, data, key=None, **more):
        before = state(receiver)
        with pytest.raises(error) as refusal:
            take(data, key, **more)
        assert state(receiver) == before
        assert studies(receiver) == []
        return refusal.value.detail

    return refused


def test_what_is_genuine_is_taken(forger, take, receiver, sender):
    root = forger.tree.root
    said = take(forger.file(root), forger.key_file(root))
    assert (said["study"], said["outcomes"]) == (STUDY, {"new": 3})
    assert studies(receiver) == [STUDY]
    assert [each.digest for each in receiver.index.locate(STUDY)] == [
        each.digest for each in sender.index.locate(STUDY)
    ]
    records = recorded(receiver, "study.import")
    assert records[0]["sender"] == sender.keystore.node_id.hex()
    assert [record["instance"] for record in records[1:]] == [f"{STUDY}.1.{number}" for number in range(3)]
    with closing(sqlite3.connect(receiver.settings.home / "index.db")) as connection:
        sources = connection.execute("SELECT DISTINCT source FROM instance").fetchall()
        owned = connection.execute("SELECT count(*) FROM block WHERE instance IS NULL").fetchone()
    assert sources == [(f"node {sender.keystore.node_id.hex()}",)]
    assert owned == (2,)  # the page and the root alone are no instance's


def test_taking_it_again_changes_no_instance(forger, take, receiver):
    root = forger.tree.root
    take(forger.file(root), forger.key_file(root))
    before = {name: rows for name, rows in state(receiver).items() if name not in ("record", "pin")}
    assert take(forger.file(root), forger.key_file(root))["outcomes"] == {"again": 3}
    assert take(forger.file(root))["outcomes"] == {"again": 3}
    assert {name: rows for name, rows in state(receiver).items() if name not in ("record", "pin")} == before


def test_a_copy_that_heals_is_no_superseded_one_and_the_damaged_one_is_not_missed(forger, take, receiver):
    root = forger.tree.root
    take(forger.file(root), forger.key_file(root))
    held = next(iter(receiver.index.locate(STUDY)))
    at = receiver.packs.position(held.object.root)
    with (receiver.settings.home / "packs" / f"{at.pack:08d}.car").open("r+b") as pack:
        pack.seek(at.offset + at.length - 1)
        last = pack.read(1)
        pack.seek(at.offset + at.length - 1)
        pack.write(bytes([last[0] ^ 1]))
    assert list(commands.perform(receiver, "fsck", {"repair": True}, print)["findings"]) != []
    assert take(forger.file(root), forger.key_file(root))["outcomes"] == {"healed": 1, "again": 2}
    assert receiver.index.superseded(receiver.packs.position(held.object.root).pack) == set()
    assert commands.perform(receiver, "fsck", {}, print)["findings"] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"digest": bytes(32)}, "digest"),
        ({"sop": f"{STUDY}.9"}, "UIDs"),
        ({"series": f"{STUDY}.9"}, "UIDs"),
        ({"study": f"{STUDY}.9"}, "UIDs"),
        ({"sop_class": "1.2.840.10008.5.1.4.1.1.4"}, "SOP Class"),
        ({"transfer_syntax": "1.2.840.10008.1.2"}, "file meta"),
        ({"transfer_syntax": "ä"}, "file meta"),
        ({"json": sealed_metadata.deflate(b"{}")}, "JSON"),
        ({"frames": b"\x80"}, "frames"),
        ({"bulk": b"\x80"}, "bulk values"),
        ({"data_set": 0}, "file meta"),
        ({"data_set": 1 << 40}, "behind its end"),
        ({"length": 1}, "instance"),
        ({"length": 1 << 40}, "instance"),
        ({"header": bytes(40)}, "instance"),
    ],
)
def test_metadata_that_says_otherwise_than_the_instance_is_refused(forger, refused, changes, said):
    bad = forger.forged(forger.links[1], **changes)
    root, data = forger.car([forger.links[0], bad, forger.links[2]])
    detail = refused(CarInvalid, data, forger.key_file(root))
    assert said in detail
    assert cids.to_text(bad) in detail


def test_an_instance_of_another_study_than_the_key_says_is_refused(forger, refused):
    root = forger.tree.root
    key = StudyKey(f"{STUDY}.2", 0, forger.tree.tag, forger.key.secret)
    assert "another study" in refused(CarInvalid, forger.file(root), forger.key_file(root, keys=[key]))


def test_a_wrong_key_opens_nothing(forger, refused):
    root = forger.tree.root
    key = StudyKey(STUDY, 0, forger.tree.tag, bytes(32))
    refused(CarInvalid, forger.file(root), forger.key_file(root, keys=[key]))


def test_instances_of_one_study_cannot_be_named_by_another(forger, refused):
    _, data = forger.car(forger.links, tag=bytes(16))
    detail = refused(CarInvalid, data)
    assert "another study" in detail
    assert cids.to_text(forger.links[0]) in detail


def test_manifests_that_no_node_would_write_are_refused(forger, refused):
    one, two, three = forger.links
    for pages in ([[one, two, one]], [[one], [two, three]], [[]], [[one, two, three], []]):
        root, data = forger.car((), pages=pages)
        refused(CarInvalid, data, forger.key_file(root))
        refused(CarInvalid, data)
    root = forger.add(manifest.encode_root(StudyRoot(forger.tree.tag, (), None)))
    refused(CarInvalid, forger.file(root))
    root = forger.add(manifest.encode_root(StudyRoot(forger.tree.tag, (one,), None)))
    assert cids.to_text(one) in refused(CarInvalid, forger.file(root))


def test_a_file_or_folder_of_unixfs_is_no_study(forger, refused):
    file = TreeBuilder()
    leaf = Block(cids.make(cids.RAW, b"a file of one block"), b"a file of one block")
    blocks = [block for data in (bytes(1 << 20), b"rest") for block in file.leaf(data)]
    root, above = file.finish()
    forger.store.put([leaf, *blocks, *above])
    folder = forger.add(FOLDER, cids.DAG_PB)
    for foreign in (leaf.cid, root, folder):
        assert cids.to_text(foreign) in refused(CarInvalid, forger.file(foreign))
        refused(CarInvalid, forger.file(foreign), forger.key_file(foreign))


def test_a_key_file_and_a_car_that_do_not_belong_together_are_refused(forger, refused):
    root = forger.tree.root
    other, data = forger.car(forger.links[:2])
    refused(CarInvalid, forger.file(root), forger.key_file(other))
    refused(KeyFileInvalid, data, forger.key_file(other, tag=bytes(16), keys=[forger.key._replace(tag=bytes(16))]))
    refused(KeyFileInvalid, data, forger.key_file(other, keys=[forger.key._replace(generation=1)]))


def test_nobody_else_sends_a_key_that_this_node_is_said_to_have_made(forger, refused, receiver):
    root = forger.tree.root
    detail = refused(KeyFileInvalid, forger.file(root), forger.key_file(root, origin=receiver.keystore.node_id))
    assert "this node made" in detail


def test_a_node_cannot_sign_as_the_recipient(forger, refused, receiver):
    """Whoever names the recipient as sender still holds another signing key."""
    root = forger.tree.root
    own = receiver.keystore.node_id
    refused(KeyFileInvalid, forger.file(root), forger.key_file(root, origin=own, sender=own))


def test_another_key_under_a_tag_that_is_held_is_refused(forger, take, receiver):
    root = forger.tree.root
    take(forger.file(root), forger.key_file(root))
    before = state(receiver)
    tag = forger.tree.tag
    for study, generation in ((STUDY, 0), (f"{STUDY}.2", 0), (f"{STUDY}.2", 1)):
        key = StudyKey(study, generation, tag, bytes(32))
        with pytest.raises((KeyFileInvalid, CarInvalid)):
            take(forger.file(root), forger.key_file(root, keys=[key]))
    assert state(receiver) == before


def test_a_forged_state_from_another_sender_does_not_replace_what_is_held(forger, take, receiver):
    root = forger.tree.root
    take(forger.file(root), forger.key_file(root))
    before = state(receiver)
    other, data = forger.car(forger.links[::-1])
    third = Ed25519PrivateKey.generate()
    with pytest.raises(CarInvalid, match="does not continue"):
        take(data, forger.key_file(other, signer=third, sender=b"third node 16 by"))
    with pytest.raises(CarInvalid, match="does not continue"):
        take(data)
    assert state(receiver) == before


def test_the_node_that_made_the_tree_may_send_a_healed_one(forger, take, receiver, sender):
    root = forger.tree.root
    take(forger.file(root), forger.key_file(root))
    healed = forger.forged(forger.links[0], source="another")
    other, data = forger.car([healed, *forger.links[1:]])
    with pytest.raises(CarInvalid, match="does not continue"):
        take(data, forger.key_file(other))  # nobody has said whose key signed it
    verifier = commands.perform(sender, "key-show", {}, lambda text: None)["verifier"]
    take(data, forger.key_file(other), **{"from": verifier})
    assert receiver.index.trees.by_tag(forger.tree.tag).root == other


def test_another_verifier_than_the_one_given_is_refused(forger, refused, receiver):
    root = forger.tree.root
    own = commands.perform(receiver, "key-show", {}, lambda text: None)["verifier"]
    refused(KeyFileInvalid, forger.file(root), forger.key_file(root), **{"from": own})
    refused(RequestError, forger.file(root), forger.key_file(root), **{"from": "a key"})


def test_an_engine_that_is_down_keeps_no_study_out(forger, take, receiver, monkeypatch):
    def down(root, replaces=None):
        raise EngineFault("Kubo does not answer")

    monkeypatch.setattr(receiver.content, "pin", down)
    root = forger.tree.root
    said = take(forger.file(root), forger.key_file(root))
    assert not said["pinned"]
    assert studies(receiver) == [STUDY]
    assert receiver.index.trees.by_root(root) is not None and receiver.index.pins.of(root) is None


def test_a_study_that_was_lost_comes_back_to_its_own_node_by_its_own_key_file(sender, tmp_path, take):
    keystore = sender.keystore
    own = Recipient.of(keystore.node_id, keystore.agreement_seed).text()
    files = {"out": str(tmp_path / "own.car"), "to": own, "key_out": str(tmp_path / "own.key")}
    commands.perform(sender, "study-export", {"study": STUDY, **files}, lambda text: None)
    again = opened(tmp_path / "again")
    try:
        again.keystore = keystore  # the same node on a new disk, its keystore restored
        data, key = (tmp_path / "own.car").read_bytes(), (tmp_path / "own.key").read_bytes()
        assert take(data, key, again)["outcomes"] == {"new": 3}
        assert studies(again) == [STUDY]
    finally:
        again.close()


def test_an_export_is_recorded_before_it_is_written(sender, tmp_path, forger):
    out = tmp_path / "nowhere" / "x.car"
    with pytest.raises(Exception, match="cannot be written"):
        commands.perform(sender, "study-export", {"study": STUDY, "out": str(out)}, lambda text: None)
    first, second = recorded(sender, "study.export")
    assert first["root"] == second["root"] == cids.to_text(forger.tree.root)
    assert second["failed"] == "config-invalid"


def test_an_export_of_a_damaged_study_leaves_no_file(sender, tmp_path, forger):
    position = sender.packs.position(manifest.decode_instance(sender.content.get(forger.links[2])).object)
    with (sender.settings.home / f"packs/{position.pack:08d}.car").open("r+b") as pack:
        pack.seek(position.offset)
        pack.write(b"damage")
    to = forger.recipient.text()
    arguments = {"study": STUDY, "out": str(tmp_path / "x.car"), "to": to, "key_out": str(tmp_path / "x.key")}
    with pytest.raises(Exception, match="damaged"):
        commands.perform(sender, "study-export", arguments, lambda text: None)
    assert not [path for path in tmp_path.iterdir() if path.name not in ("sender", "receiver")]


def test_only_keys_that_the_instances_name_are_given(sender, tmp_path, forger, receiver):
    sender.keys.next_generation(STUDY)
    to = forger.recipient.text()
    arguments = {"study": STUDY, "out": str(tmp_path / "x.car"), "to": to, "key_out": str(tmp_path / "x.key")}
    commands.perform(sender, "study-export", arguments, lambda text: None)
    assert study_key_file.read((tmp_path / "x.key").read_bytes()).generations == (0,)


def test_a_study_that_nobody_holds_and_one_without_its_key_are_not_exported(sender, tmp_path):
    arguments = {"out": str(tmp_path / "x.car")}
    with pytest.raises(NotFound):
        commands.perform(sender, "study-export", {"study": "1.2.3", **arguments}, lambda text: None)
    sender.keys.delete(STUDY)
    with pytest.raises(ContentMissing):
        commands.perform(sender, "study-export", {"study": STUDY, **arguments}, lambda text: None)
    assert not (tmp_path / "x.car").exists()


def test_a_study_that_still_arrives_is_not_exported_in_part(sender, tmp_path, monkeypatch):
    monkeypatch.setattr("bridge.services.export_study.SETTLING_S", 0.0)
    reception = sender.store.reception(OPERATOR)
    incoming = reception.begin()
    incoming.write(part10(instance(study=STUDY, sop=f"{STUDY}.1.9")))
    incoming.commit()
    with pytest.raises(Busy):
        commands.perform(sender, "study-export", {"study": STUDY, "out": str(tmp_path / "x.car")}, lambda text: None)
    reception.close()
    said = commands.perform(sender, "study-export", {"study": STUDY, "out": str(tmp_path / "x.car")}, lambda text: None)
    assert said["instances"] == 4


def test_of_several_trees_one_is_chosen_by_its_root(forger, take, receiver, tmp_path):
    root = forger.tree.root
    take(forger.file(root), forger.key_file(root))
    with receiver.store.reception(OPERATOR) as reception:
        incoming = reception.begin()
        incoming.write(part10(instance(study=STUDY, sop=f"{STUDY}.1.9")))
        incoming.commit()
    out = {"study": STUDY, "out": str(tmp_path / "y.car")}
    with pytest.raises(RequestError, match=cids.to_text(root)):
        commands.perform(receiver, "study-export", out, lambda text: None)
    said = commands.perform(receiver, "study-export", {**out, "root": cids.to_text(root)}, lambda text: None)
    assert said["instances"] == 3
    own = receiver.index.trees.of_study(STUDY)[0]
    said = commands.perform(receiver, "study-export", {**out, "root": cids.to_text(own.root)}, lambda text: None)
    assert said["instances"] == 1
    with pytest.raises(NotFound):
        missing = cids.to_text(cids.make(cids.DAG_CBOR, b""))
        commands.perform(receiver, "study-export", {**out, "root": missing}, lambda text: None)


def test_a_disk_that_fills_up_leaves_nothing_visible_and_the_import_can_be_done_again(
    forger, take, receiver, monkeypatch
):
    put = receiver.content.put
    calls = []

    def full(blocks):
        calls.append(len(blocks))
        if len(calls) == 2:
            raise StorageFull("the disk is full")
        return put(blocks)

    monkeypatch.setattr(receiver.content, "put", full)
    root = forger.tree.root
    with pytest.raises(StorageFull):
        take(forger.file(root), forger.key_file(root))
    assert studies(receiver) == []
    assert receiver.index.trees.by_tag(forger.tree.tag) is None
    assert receiver.keys.tags_of(STUDY) == []
    assert recorded(receiver, "study.import") == []
    assert take(forger.file(root), forger.key_file(root))["outcomes"] == {"new": 3}


def test_a_study_for_which_there_is_no_room_is_refused_before_anything_is_written(forger, take, receiver, monkeypatch):
    root, asked = forger.tree.root, []

    def require_room(size):
        asked.append(size)
        raise StorageFull("the disk is full")

    monkeypatch.setattr(receiver.packs, "require_room", require_room)
    monkeypatch.setattr(receiver.content, "put", None)
    with pytest.raises(StorageFull):
        take(forger.file(root), forger.key_file(root))
    assert len(asked) == 1 and 0 < asked[0] < len(forger.file(root))
    assert studies(receiver) == []


def test_two_imports_at_once_are_one_study(forger, receiver, tmp_path):
    root = forger.tree.root
    (tmp_path / "x.car").write_bytes(forger.file(root))
    (tmp_path / "x.key").write_bytes(forger.key_file(root))
    arguments = {"path": str(tmp_path / "x.car"), "key": str(tmp_path / "x.key")}

    def take(_):
        return commands.perform(receiver, "study-import", arguments, lambda text: None)["outcomes"]

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(take, range(4)))
    assert sorted(outcomes, key=str) == [{"again": 3}] * 3 + [{"new": 3}]
    assert [tree.root for tree in receiver.index.trees.of_study(STUDY)] == [root]
    assert len(receiver.index.locate(STUDY)) == 3


def test_a_file_that_is_no_file_is_named(take, receiver, tmp_path):
    for path, said in ((tmp_path / "missing.car", "cannot be read"), (tmp_path, "is not a file")):
        with pytest.raises(ConfigError, match=said):
            commands.perform(receiver, "study-import", {"path": str(path)}, lambda text: None)


def test_exports_at_once_to_one_file_leave_one_whole_file(sender, forger, tmp_path):
    arguments = {"study": STUDY, "out": str(tmp_path / "x.car")}

    def export(_):
        commands.perform(sender, "study-export", arguments, lambda text: None)
        return Car(io.BytesIO((tmp_path / "x.car").read_bytes())).root

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(export, range(8))) == {forger.tree.root}
    assert {path.name for path in tmp_path.iterdir()} == {"sender", "receiver", "x.car"}
    assert (tmp_path / "x.car").stat().st_mode & 0o777 == 0o600
