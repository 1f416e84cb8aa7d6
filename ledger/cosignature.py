"""Cosignatures of checkpoints by witnesses: C2SP tlog-cosignature v1, Ed25519 (signature type 0x04).

A cosigner says that at a time the checkpoint's tree was the largest it had seen of the log, consistent with all before.
What is signed is "cosignature/v1", a line with the time, and the whole text of the checkpoint's note.
"""

from __future__ import annotations

from collections.abc import Sequence

from ledger import keys
from ledger.checkpoint import Signature, Verifier, key_name, parse_vkey, signature_line, signatures_of, split_note
from ledger.errors import SignatureInvalid

COSIGNATURE = b"\x04"  # signature type of signed-note
LATEST = 2**63 - 1  # seconds; the specification's limit
_TIME_SIZE = 8  # bytes


def parse_cosigner(vkey: str) -> Verifier:
    """The cosigner of a vkey of type 0x04; raises CodecError when it is malformed or of another type."""
    return parse_vkey(vkey, COSIGNATURE)


def cosigner(name: str, public_key: keys.PublicKey) -> Verifier:
    """A witness by its name and key; raises CodecError for a name that no key can have."""
    return Verifier(key_name(name), keys.raw(public_key), COSIGNATURE)


def message(text: str, time_s: int) -> bytes:
    """What is signed for a checkpoint's note text at a POSIX time in seconds."""
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def sign(note: str, name: str, signer: keys.Signer, time_s: int) -> str:
    """The note with one more line: the cosignature under this name at a POSIX time in seconds.

    The cosigner must have checked before that the checkpoint is consistent with the largest it has seen. Raises
    CodecError when it is no note or the name can be no key's, SignatureInvalid for a time out of range.
    """
    return note + line(split_note(note)[0], name, signer, time_s)


def line(text: str, name: str, signer: keys.Signer, time_s: int) -> str:
    """The signature line alone over a checkpoint's note text, with its newline. As `sign`."""
    if not 0 <= time_s <= LATEST:
        raise SignatureInvalid("a cosignature's time is a POSIX time below 2**63", "cosignature")
    time = time_s.to_bytes(_TIME_SIZE, "big")
    return signature_line(cosigner(name, signer.public_key()), time + signer.sign(message(text, time_s)))


def cosigned(text: str, signatures: Sequence[Signature], by: Verifier) -> int | None:
    """When the text was cosigned by this key, in seconds since the epoch, the latest of several; None when it was not.

    Raises SignatureInvalid when a line of this key does not verify: signed-note has the whole note rejected then.
    """
    times = []
    for signature in signatures_of(by, signatures):
        time_s = int.from_bytes(signature[:_TIME_SIZE], "big")
        if len(signature) != _TIME_SIZE + keys.SIGNATURE_SIZE or time_s > LATEST:
            raise SignatureInvalid(f"the cosignature of {by.name} is malformed", "cosignature")
        try:
            keys.check(by.key, signature[_TIME_SIZE:], message(text, time_s))
        except SignatureInvalid as error:
            raise SignatureInvalid(f"the cosignature of {by.name} does not verify", "cosignature") from error
        times.append(time_s)
    return max(times, default=None)
