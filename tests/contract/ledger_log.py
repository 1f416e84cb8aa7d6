"""What every LedgerLog must do: subclass `LedgerLogContract` in a test file and give it a log and an empty one."""

import pytest

from bridge.errors import NotFound
from ledger import checkpoint, entry, merkle, proof, tiles


class LedgerLogContract:
    """The suite.

    Subclasses have the fixtures `empty`, a log without entries, and `sealed`, a log of at least three entries of which
    one is over several records, with the records' leaf hashes in order, entry by entry.
    """

    @pytest.fixture
    def log(self, sealed):
        return sealed[0]

    @pytest.fixture
    def records(self, sealed):
        return sealed[1]

    @pytest.fixture
    def leaves(self, log, records):
        """The leaf hashes of all entries, from the published bundle."""
        size = len(records)
        assert size < tiles.WIDTH
        return [entry.leaf_hash(item) for item in tiles.split_bundle(log.file(f"tile/entries/000.p/{size}"))]

    def verify(self, log, text):
        key = checkpoint.parse_vkey(log.key())
        return proof.verify(text, key.name, key.key)

    def test_the_newest_checkpoint_is_signed_by_the_key_and_of_all_entries(self, log, leaves):
        key = checkpoint.parse_vkey(log.key())
        head = checkpoint.verify(log.checkpoint(), key.name, key.key)
        assert (head.size, head.root) == (len(leaves), merkle.root(leaves))

    def test_an_entry_is_proved_and_its_envelope_given_by_its_id(self, log, leaves):
        for index, leaf in enumerate(leaves):
            proved = self.verify(log, log.prove(leaf))
            assert (proved.index, proved.leaf, proved.record_leaf) == (index, leaf, None)
            assert entry.leaf_hash(log.envelope(leaf)) == leaf

    def test_a_record_is_proved_by_its_leaf_hash_with_its_own_bytes_alone(self, log, records):
        assert any(len(held) > 1 for held in records)
        for index, held in enumerate(records):
            for leaf in held:
                text = log.prove(leaf)
                proved = self.verify(log, text)
                assert (proved.index, proved.record_leaf) == (index, leaf)
                assert proved.record is not None

    def test_tiles_hold_the_leaves(self, log, leaves):
        assert log.file(f"tile/0/000.p/{len(leaves)}") == b"".join(leaves)

    def test_consistency_is_proved_between_any_two_sizes(self, log, leaves):
        for second in range(len(leaves) + 1):
            for first in range(second + 1):
                heads = merkle.root(leaves[:first]), merkle.root(leaves[:second])
                merkle.verify_consistency(first, second, *heads, log.consistency(first, second))

    def test_what_is_not_there_is_not_found(self, log, records, leaves):
        for ask in (log.prove, log.envelope):
            for wrong in (bytes(32), b"", b"short"):
                with pytest.raises(NotFound):
                    ask(wrong)
        with pytest.raises(NotFound):
            log.envelope(records[0][0])  # a record has no envelope of its own
        size = len(leaves)
        for path in (
            "tile/0/000",
            f"tile/0/000.p/{size + 1}",
            "tile/7/000.p/1",
            "../ledger.db",
            "checkpoint",
            "tile/0/x",
        ):
            with pytest.raises(NotFound):
                log.file(path)
        for sizes in ((2, 1), (-1, 2), (0, size + 1)):
            with pytest.raises(NotFound):
                log.consistency(*sizes)

    def test_before_the_first_entry_there_is_a_key_and_nothing_to_prove(self, empty):
        checkpoint.parse_vkey(empty.key())
        assert empty.checkpoint() is None
        for ask in (empty.prove, empty.envelope):
            with pytest.raises(NotFound):
                ask(bytes(32))
        with pytest.raises(NotFound):
            empty.file("tile/0/000.p/1")
        with pytest.raises(NotFound):
            empty.consistency(0, 1)
