"""The node's keys as they are in use: a ledger key that the members have accepted follows the former at a start."""

from __future__ import annotations

import logging

from bridge.config import Settings
from bridge.consortium import own_consortium
from bridge.crypto.keystore import Keystore, open_keystore
from bridge.crypto.next_key import adopt_next, read_next
from bridge.crypto.wrapping import finish_replacing
from bridge.ledger_reading import public_key
from ledger import keys
from ledger.members import Member

log = logging.getLogger(__name__)


def open_keys(settings: Settings) -> Keystore:
    """The keystore of a home, after the next ledger key was taken into use when it was accepted meanwhile.

    A replacement of the key-encryption key that was interrupted is ended first.

    To be called under the run lock, while no process runs that has read the keys. Raises ConfigError, StorageFault.
    """
    finish_replacing(settings.home, settings.keys.passphrase_file)
    keystore = open_keystore(settings.home, settings.keys.passphrase_file)
    if not accepted(settings, keystore):
        return keystore
    adopt_next(settings.home)
    log.info("the ledger key that the members accepted is in use from now on")
    return open_keystore(settings.home, settings.keys.passphrase_file)


def awaits_restart(own: Member, keystore: Keystore) -> bool:
    """Whether the members have accepted a key of this node that it takes into use at its next start."""
    return own.keys[-1].first is None and own.keys[-1].key != keys.raw(public_key(keystore))


def accepted(settings: Settings, keystore: Keystore) -> bool:
    """Whether the members have accepted the key that is to follow, so that the next start takes it into use."""
    following = read_next(settings.home, settings.keys.passphrase_file)
    consortium = own_consortium(settings, keystore) if following is not None else None
    if following is None or consortium is None:
        return False
    try:
        own = consortium.own()
    finally:
        consortium.close()
    public = keys.raw(keys.SigningKey(following).public_key())
    return own is not None and own.keys[-1].key == public
