"""What every KeyStore must do: subclass `KeyStoreContract` in a test file and give it a store."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bridge.errors import ContentMissing


class KeyStoreContract:
    """The suite; `make(home)` opens the store of a home, and may be called again while another is open."""

    def make(self, home):
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path):
        store = self.make(tmp_path)
        yield store
        store.close()

    def test_a_study_has_one_key(self, store):
        key = store.study_key("1.2.3")
        assert (key.study, len(key.tag), len(key.secret)) == ("1.2.3", 16, 32)
        assert store.study_key("1.2.3") == key

    def test_studies_have_keys_and_tags_of_their_own(self, store):
        keys = [store.study_key(f"1.2.{number}") for number in range(20)]
        assert len({key.secret for key in keys}) == len({key.tag for key in keys}) == 20

    def test_a_key_is_found_by_what_a_sealed_object_names(self, store):
        key = store.study_key("1.2.3")
        assert store.open(key.tag, key.generation) == key

    def test_a_key_that_is_not_held_is_missing(self, store):
        key = store.study_key("1.2.3")
        with pytest.raises(ContentMissing):
            store.open(key.tag, key.generation + 1)
        with pytest.raises(ContentMissing):
            store.open(bytes(16), key.generation)

    def test_keys_are_there_after_closing_and_opening(self, tmp_path):
        store = self.make(tmp_path)
        key = store.study_key("1.2.3")
        store.close()
        again = self.make(tmp_path)
        assert again.study_key("1.2.3") == key
        assert again.open(key.tag, key.generation) == key
        again.close()

    def test_two_openings_agree_on_a_key_that_both_create_at_once(self, tmp_path):
        stores = [self.make(tmp_path) for _ in range(4)]
        start = threading.Barrier(4)

        def create(store):
            start.wait()
            return [store.study_key(f"1.2.{number}") for number in range(25)]

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(create, stores))
        assert found[0] == found[1] == found[2] == found[3]
        for store in stores:
            store.close()

    def test_many_threads_share_one_store(self, store):
        start = threading.Barrier(8)

        def create(_):
            start.wait()
            return [store.study_key(f"1.2.{number}") for number in range(25)]

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(create, range(8)))
        assert all(keys == found[0] for keys in found)

    def test_a_key_never_shows_its_secret_in_words(self, store):
        key = store.study_key("1.2.3")
        assert key.secret.hex() not in repr(key)
        assert repr(key.secret) not in repr(key)
        assert "1.2.3" not in repr(key)
