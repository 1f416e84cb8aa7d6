"""`cairn study export`: a study as a CAR of its sealed blocks and, for one other node, the key that opens it.

    (1) the tree: this node's own or another's, once its manifest names every instance
    (2) the keys that its instances are sealed under, and no others
    (3) record the export, durably, before the first byte is written
    (4) the key file: these keys sealed to the recipient (HPKE), signed by this node
    (5) both files, whole and synced; then put in their places                          whole_file

The CAR is ciphertext: whoever has it without a key learns how many blocks of which sizes there are. When something
fails, neither file is there.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from bridge.content import cid as cids
from bridge.content import manifest
from bridge.content.car_transfer import export_car
from bridge.crypto import study_key_file
from bridge.crypto.hpke import Recipient
from bridge.crypto.keystore import Keystore
from bridge.crypto.study_key_file import Envelope
from bridge.errors import Busy, CairnError, ConfigError, ContentMissing, NotFound, RequestError, StorageFull
from bridge.model import Actor, StudyKey, StudyTree, Tree
from bridge.ports import ContentStore, KeyStore
from bridge.services.access import Access
from bridge.services.provenance import Clock, now_us
from bridge.whole_file import WholeFile
from ledger.keys import SigningKey

__all__ = ["Exported", "Sender", "Studies", "export_study"]

SETTLING_S: Final = 10.0
"""A batch of stores closes after 2 s without one; a study still growing after this is not exported."""
TOLD_EVERY: Final = 256 << 20
Report = Callable[[str], None]


class Studies(Protocol):
    """What the index knows of manifests. Every method may raise StorageFault."""

    def of_study(self, study: str) -> Sequence[Tree]:
        """The trees of a study, this node's own first."""

    def manifest(self, tag: bytes) -> StudyTree:
        """The manifest of a study tag. Raises NotFound."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who exports: this node's keys, the name of its log, and where its content, keys and records are."""

    keystore: Keystore
    log: str
    studies: Studies
    content: ContentStore
    keys: KeyStore
    access: Access
    clock: Clock = now_us


class Exported(NamedTuple):
    """What was written: the root's CID, how many instances it covers, the CAR's size in bytes."""

    root: bytes
    instances: int
    size: int


class _Manifest(NamedTuple):
    """A tree as its blocks say: row, instance blocks' CIDs in order."""

    tree: Tree
    root: bytes
    links: tuple[bytes, ...]


def export_study(
    sender: Sender,
    actor: Actor,
    study: str,
    out: Path,
    report: Report,
    *,
    to: Recipient | None = None,
    key_out: Path | None = None,
    root: bytes | None = None,
) -> Exported:
    """Write a study to files, replacing what lies there.

    Parameters
    ----------
    study
        Its Study Instance UID.
    out
        Where the CAR goes.
    to, key_out
        Who the key is sealed to and where its file goes; both or neither.
    root
        Which tree, when there are several: the CID of its newest root.

    Raises NotFound, RequestError when there are several trees to choose from, Busy when instances still arrive,
    ContentMissing or ContentCorrupt at a block or key that is not held, ConfigError when a file cannot be written,
    StorageFull, StorageFault.
    """
    found = _settled(sender, study, root)  # (1)
    keys = _keys(sender, found)  # (2)
    said: dict[str, object] = {"study": study, "root": cids.to_text(found.root), "instances": len(found.links)}
    if to is not None:
        said |= {"to": to.node.hex(), "recipient": to.text()}
    newest = keys[-1]
    sender.access.about_study("study.export", actor, newest, "TREAT", said)  # (3)
    files: list[tuple[Path, Iterable[bytes]]] = [(out, _told(export_car(sender.content, found.root), report))]
    try:
        if to is not None and key_out is not None:
            files.append((key_out, [_key_file(sender, found, keys, to)]))  # (4)
        size = _write(files)[0]  # (5)
    except CairnError as error:
        sender.access.about_study("study.export", actor, newest, "TREAT", {**said, "failed": error.slug}, outcome=8)
        raise
    return Exported(found.root, len(found.links), size)


def _settled(sender: Sender, study: str, root: bytes | None) -> _Manifest:
    """(1) The chosen tree once its root covers every instance that came with it."""
    deadline = time.monotonic() + SETTLING_S
    while True:
        tree = _chosen(sender.studies.of_study(study), root)
        held = sender.studies.manifest(tree.tag)
        if held.root is not None and (not held.own or held.covered == len(held.instances)):
            return _read(sender.content, tree, held.root)
        if time.monotonic() > deadline:
            raise Busy("instances of the study still arrive; its manifest does not name them all yet")
        time.sleep(0.1)


def _chosen(trees: Sequence[Tree], root: bytes | None) -> Tree:
    if not trees:
        raise NotFound("no such study is held")
    if root is not None:
        trees = [tree for tree in trees if tree.root == root]
        if not trees:
            raise NotFound("no tree of the study has this root now")
    if len(trees) > 1:
        roots = ", ".join(cids.to_text(tree.root) for tree in trees if tree.root is not None)
        raise RequestError(f"instances of the study came from several nodes; name one root with --root: {roots}")
    return trees[0]


def _read(content: ContentStore, tree: Tree, root: bytes) -> _Manifest:
    pages = manifest.decode_root(content.get(root)).pages
    return _Manifest(tree, root, tuple(link for page in pages for link in manifest.decode_page(content.get(page))))


def _keys(sender: Sender, found: _Manifest) -> list[StudyKey]:
    """(2) The keys of the generations that the tree's instances name, and of no others; ascending."""
    named = {manifest.decode_instance(sender.content.get(link)).generation for link in found.links}
    if not named:
        raise ContentMissing("the manifest names no instance")
    return [sender.keys.open(found.tree.tag, generation) for generation in sorted(named)]


def _key_file(sender: Sender, found: _Manifest, keys: Sequence[StudyKey], to: Recipient) -> bytes:
    keystore = sender.keystore
    signer = SigningKey(keystore.signing_seed)
    envelope = Envelope(
        log=sender.log,
        sender=keystore.node_id,
        sender_key=signer.public_key(),
        recipient=to.node,
        origin=found.tree.origin or keystore.node_id,
        tag=found.tree.tag,
        generations=tuple(key.generation for key in keys),
        root=found.root,
        made=sender.clock(),
    )
    try:
        return study_key_file.write(envelope, keys, to, signer)
    except ValueError as error:
        raise RequestError(f"the study's key cannot be sealed to this recipient: {error}") from None


def _told(pieces: Iterable[bytes], report: Report) -> Iterator[bytes]:
    size = told = 0
    for piece in pieces:
        yield piece
        size += len(piece)
        if size - told >= TOLD_EVERY:
            told = size
            report(f"{size >> 20} MiB written")


def _write(files: Sequence[tuple[Path, Iterable[bytes]]]) -> list[int]:
    """Write all files whole or none of them; their sizes. Raises ConfigError, StorageFull, and what the pieces do."""
    for path, _ in files:
        if path.exists() and not path.is_file():  # what is written takes its place, be it a device
            raise ConfigError(f"{path} is there, and is not a file")
    if len({path.absolute() for path, _ in files}) < len(files):
        raise ConfigError("the study and its key go to two files")
    written: list[tuple[WholeFile, Path]] = []
    sizes: list[int] = []
    with contextlib.ExitStack() as discarding:
        for path, pieces in files:
            with _faults(path):
                file = discarding.enter_context(WholeFile(path))
                sizes.append(file.write(pieces))
            written.append((file, path))
        for file, path in written:
            with _faults(path):
                file.place()
    return sizes


@contextlib.contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"there is no space left for {path}") from error
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
