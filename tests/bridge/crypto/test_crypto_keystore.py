import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bridge.crypto.keystore import DEFAULT_COST, Cost, open_keystore
from bridge.crypto.unlock import CREDENTIAL, Protection
from bridge.errors import ConfigError

CHEAP = Cost(64, 1, 4)
ROOT = Path(__file__).parents[3]


def opened(home, passphrase_file=None, environ=None):
    return open_keystore(home, passphrase_file, environ or {}, CHEAP)


def secret_file(path, text="correct horse\n", mode=0o600):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_first_start_makes_keys_and_the_next_opens_the_same(tmp_path):
    first = opened(tmp_path)
    assert first == opened(tmp_path)
    assert first.protection == Protection.UNPROTECTED
    seeds = [first.signing_seed, first.agreement_seed, first.key_encryption_key, first.actor_tag_key, first.audit_key]
    assert len(set(seeds)) == 5
    assert {len(seed) for seed in seeds} == {32}
    assert len(first.node_id) == len(first.ledger_id) == 16


def test_every_file_is_for_its_owner_alone_and_no_draft_is_left(tmp_path):
    opened(tmp_path)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()}
    assert modes == {"keystore.json": 0o600, "unlock": 0o600}
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


def test_no_secret_is_readable_in_the_file_or_in_words(tmp_path):
    keystore = opened(tmp_path)
    raw = (tmp_path / "keys/keystore.json").read_bytes()
    for seed in (keystore.signing_seed, keystore.key_encryption_key):
        assert seed not in raw
        assert seed.hex() not in repr(keystore)
        assert repr(seed) not in repr(keystore)


def test_a_passphrase_file_protects_and_its_line_end_does_not_matter(tmp_path):
    secret = secret_file(tmp_path / "secret")
    keystore = opened(tmp_path, secret)
    assert keystore.protection == Protection.PASSPHRASE
    assert not (tmp_path / "keys/unlock").exists()
    secret.write_text("correct horse")
    assert opened(tmp_path, secret) == keystore


def test_a_systemd_credential_protects_and_may_show_group_bits(tmp_path):
    secret_file(tmp_path / "credentials" / CREDENTIAL, mode=0o440)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    keystore = opened(tmp_path, None, environ)
    assert keystore.protection == Protection.CREDENTIAL
    assert opened(tmp_path, None, environ) == keystore


def test_a_wrong_passphrase_is_said_plainly(tmp_path):
    opened(tmp_path, secret_file(tmp_path / "right"))
    with pytest.raises(ConfigError, match="passphrase does not open"):
        opened(tmp_path, secret_file(tmp_path / "wrong", "incorrect\n"))


def test_a_keystore_that_is_gone_beside_the_keys_it_opens_is_never_replaced(tmp_path):
    opened(tmp_path)
    (tmp_path / "keys/keys.db").write_bytes(b"whatever is wrapped here")
    (tmp_path / "keys/keystore.json").unlink()
    with pytest.raises(ConfigError, match="restore it from a backup"):
        opened(tmp_path)
    assert not (tmp_path / "keys/keystore.json").exists()


def test_a_keystore_whose_secret_is_gone_is_never_replaced(tmp_path):
    opened(tmp_path)
    raw = (tmp_path / "keys/keystore.json").read_bytes()
    (tmp_path / "keys/unlock").unlink()
    with pytest.raises(ConfigError, match="neither"):
        opened(tmp_path)
    assert (tmp_path / "keys/keystore.json").read_bytes() == raw
    assert not (tmp_path / "keys/unlock").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_files_that_others_may_read_are_refused(tmp_path, mode):
    with pytest.raises(ConfigError, match="read by others"):
        opened(tmp_path, secret_file(tmp_path / "secret", mode=mode))
    opened(tmp_path)
    for name in ("unlock", "keystore.json"):
        path = tmp_path / "keys" / name
        path.chmod(mode)
        with pytest.raises(ConfigError, match="read by others"):
            opened(tmp_path)
        path.chmod(0o600)


def test_a_credential_that_anyone_may_read_is_refused(tmp_path):
    secret_file(tmp_path / "credentials" / CREDENTIAL, mode=0o444)
    with pytest.raises(ConfigError, match="read by others"):
        opened(tmp_path, None, {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")})


@pytest.mark.parametrize("text", ["", "\n", "x" * 4097])
def test_an_empty_or_endless_passphrase_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="empty or beyond"):
        opened(tmp_path, secret_file(tmp_path / "secret", text))


def test_a_passphrase_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        opened(tmp_path, tmp_path / "secret")


def change(document, path, value):
    *parents, last = path
    for name in parents:
        document = document[name]
    document[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["version"], 2),
        (["kdf", "name"], "pbkdf2"),
        (["kdf", "memory"], 1 << 30),
        (["kdf", "memory"], 8),
        (["kdf", "memory"], 128),
        (["kdf", "passes"], 0),
        (["kdf", "passes"], 2),
        (["kdf", "lanes"], "many"),
        (["kdf", "salt"], "AAAA"),
        (["cipher", "nonce"], "!"),
        (["cipher", "name"], "none"),
        (["sealed"], "AAAA"),
        (["kdf"], None),
        (["note"], "added"),
    ],
)
def test_an_altered_keystore_is_refused(tmp_path, path, value):
    opened(tmp_path)
    file = tmp_path / "keys/keystore.json"
    document = json.loads(file.read_text())
    change(document, path, value)
    file.write_text(json.dumps(document))
    with pytest.raises(ConfigError):
        opened(tmp_path)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b"null"])
def test_a_keystore_that_is_no_document_is_refused(tmp_path, raw):
    opened(tmp_path)
    (tmp_path / "keys/keystore.json").write_bytes(raw)
    with pytest.raises(ConfigError, match="damaged"):
        opened(tmp_path)


def test_starts_at_the_same_moment_agree_on_one_keystore(tmp_path):
    code = (
        "import sys; from pathlib import Path; from bridge.crypto.keystore import *\n"
        "print(open_keystore(Path(sys.argv[1]), None, {}, Cost(64, 1, 4)).node_id.hex())"
    )

    def start(_):
        return subprocess.run(
            [sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
        )

    with ThreadPoolExecutor(4) as pool:
        found = {done.stdout for done in pool.map(start, range(4))}
    assert found == {opened(tmp_path).node_id.hex() + "\n"}


def test_the_cost_of_a_new_keystore_is_that_of_rfc_9106(tmp_path):
    open_keystore(tmp_path, None, {})
    kdf = json.loads((tmp_path / "keys/keystore.json").read_text())["kdf"]
    assert (
        (kdf["name"], kdf["memory"], kdf["passes"], kdf["lanes"])
        == ("argon2id", 65536, 3, 4)
        == ("argon2id", *DEFAULT_COST)
    )
