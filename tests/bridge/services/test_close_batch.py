"""Batches: when they close, what closing makes, and that a crash leaves them for the next start."""

from __future__ import annotations

from collections.abc import Callable

from pydicom.uid import generate_uid

from bridge.content import manifest
from bridge.model import Outcome
from bridge.node import Node
from bridge.services import close_batch
from tests.bridge.services.conftest import SENDER, instance, part10


def put(reception: object, file: bytes) -> None:
    incoming = reception.begin()  # type: ignore[attr-defined]
    incoming.write(file)
    incoming.commit()


def test_leaving_a_reception_closes_one_batch_for_each_study(node: Node) -> None:
    studies = [generate_uid(), generate_uid()]
    with node.store.reception(SENDER) as reception:
        for number in range(6):
            put(reception, part10(instance(study=studies[number % 2])))
        assert node.index.counts()["closed_batches"] == 0
    assert node.index.counts()["closed_batches"] == 2


def test_what_was_submitted_and_not_waited_for_is_written_when_its_batch_closes(node: Node) -> None:
    study = generate_uid()
    with node.store.reception(SENDER) as reception:
        put(reception, part10(instance(study=study)))
        incoming = reception.begin()
        incoming.write(part10(instance(study=study)))
        durable = incoming.submit()
        assert len(node.index.locate(study)) == 1
    assert len(node.index.locate(study)) == 2
    assert node.index.counts()["closed_batches"] == 1
    assert durable().outcome is Outcome.NEW


def test_closing_makes_a_root_over_pages_over_instance_blocks(node: Node) -> None:
    study = generate_uid()
    for _ in range(2):
        with node.store.reception(SENDER) as reception:
            for _ in range(3):
                put(reception, part10(instance(study=study)))
    tree = node.index.study_tree(node.keys.study_key(study).tag)
    assert tree.root is not None
    root = manifest.decode_root(node.content.get(tree.root))
    assert (root.study, root.pages) == (tree.tag, tree.pages)
    assert root.previous is not None
    (page,) = root.pages
    links = manifest.decode_page(node.content.get(page))
    assert links == tree.instances
    assert len({manifest.decode_instance(node.content.get(link)).tag for link in links}) == 6


def test_an_idle_batch_closes_by_the_clock_while_the_association_stays(node: Node, monkeypatch: object) -> None:
    monkeypatch.setattr(close_batch, "IDLE_S", 0.0)  # type: ignore[attr-defined]
    study = generate_uid()
    with node.store.reception(SENDER) as reception:
        put(reception, part10(instance(study=study)))
        node.batches.tick()
        assert node.index.counts()["closed_batches"] == 1
        put(reception, part10(instance(study=study)))
    assert node.index.counts()["closed_batches"] == 2


def test_what_was_left_open_is_closed_at_the_next_start(open_node: Callable[[], Node]) -> None:
    first = open_node()
    reception = first.store.reception(SENDER)
    put(reception, part10(instance()))
    first._stopped.set()  # as if killed: nothing is closed on the way out
    for clock in first._clocks:
        clock.join()
    first.batches._stores.clear()
    first.close()
    assert open_node().index.counts()["closed_batches"] == 1


def test_batches_of_many_studies_are_closed_in_one_commit(node: Node, monkeypatch: object) -> None:
    commits: list[int] = []
    transact = node.index.writer._transact
    monkeypatch.setattr(  # type: ignore[attr-defined]
        node.index.writer, "_transact", lambda jobs, content: (commits.append(len(jobs)), transact(jobs, content))[1]
    )
    with node.store.reception(SENDER) as reception:
        for _ in range(5):
            put(reception, part10(instance(study=generate_uid())))
        commits.clear()
    assert node.index.counts()["closed_batches"] == 5
    assert sum(commits) == 5
    assert len(commits) < 5


def test_two_batches_of_one_study_are_closed_one_after_the_other(node: Node) -> None:
    study = generate_uid()
    receptions = [node.store.reception(SENDER) for _ in range(2)]
    for reception in receptions:
        for _ in range(2):
            put(reception, part10(instance(study=study)))
    node.batches.close_or_log([batch for reception in receptions for batch in reception._batches.values()])
    tree = node.index.study_tree(node.keys.study_key(study).tag)
    assert tree.root is not None
    root = manifest.decode_root(node.content.get(tree.root))
    assert node.index.counts()["closed_batches"] == 2
    assert len([link for page in root.pages for link in manifest.decode_page(node.content.get(page))]) == 4
