"""Light blocks as CometBFT's RPC writes them in JSON (v0.38: /commit and /validators); read strictly."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ledger.errors import CodecError
from ledger.light_block import KEY_SIZE, MAX_VALIDATORS, BlockId, Commit, Header, LightBlock, Time, Validator, Vote

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  all of these are UTC
_HEX = re.compile(r"(?:[0-9A-F]{2})*")
_ABSENT, _FOR_BLOCK, _NIL = 1, 2, 3  # BlockIDFlag
_NO_TIME = "0001-01-01T00:00:00Z"


def light_block(commit: Mapping[str, Any], validators: Sequence[Mapping[str, Any]]) -> LightBlock:
    """The light block in the `result` of /commit and the `validators` of /validators. Raises CodecError."""
    try:
        signed = commit["signed_header"]
        if not 0 < len(validators) <= MAX_VALIDATORS:
            raise CodecError("no validators, or too many")
        voters = tuple(map(_validator, validators))
        return LightBlock(_header(signed["header"]), _commit(signed["commit"], voters), voters)
    except CodecError as error:
        raise CodecError(error.detail, "RPC") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CodecError(f"a field is missing or malformed ({error})", "RPC") from error


def _header(said: Mapping[str, Any]) -> Header:
    version = said["version"]
    return Header(
        (_number(version["block"]), _number(version.get("app", "0"))),
        _text(said["chain_id"]),
        _number(said["height"]),
        _time(said["time"]),
        _block_id(said["last_block_id"]),
        _octets(said["last_commit_hash"]),
        _octets(said["data_hash"]),
        _octets(said["validators_hash"]),
        _octets(said["next_validators_hash"]),
        _octets(said["consensus_hash"]),
        _octets(said["app_hash"]),
        _octets(said["last_results_hash"]),
        _octets(said["evidence_hash"]),
        _octets(said["proposer_address"]),
    )


def _commit(said: Mapping[str, Any], voters: Sequence[Validator]) -> Commit:
    signatures = said["signatures"]
    if len(signatures) != len(voters):
        raise CodecError("not as many votes as validators")
    votes = tuple(_vote(vote, voter) for vote, voter in zip(signatures, voters, strict=True))
    return Commit(_number(said["height"]), _small(said["round"]), _block_id(said["block_id"]), votes)


def _vote(said: Mapping[str, Any], voter: Validator) -> Vote | None:
    flag = said["block_id_flag"]
    if flag == _ABSENT:
        if said["validator_address"] or said["signature"] or said["timestamp"] != _NO_TIME:
            raise CodecError("an absent vote says something")
        return None
    if flag not in (_FOR_BLOCK, _NIL) or _octets(said["validator_address"]) != voter.address:
        raise CodecError("a vote of another flag, or not of the validator in its place")
    return Vote(_time(said["timestamp"]), _base64(said["signature"]), flag == _FOR_BLOCK)


def _validator(said: Mapping[str, Any]) -> Validator:
    key = said["pub_key"]
    if key["type"] != "tendermint/PubKeyEd25519":
        raise CodecError("a validator's key is not Ed25519")
    validator = Validator(_base64(key["value"]), _number(said["voting_power"]))
    if len(validator.public_key) != KEY_SIZE or not validator.power:
        raise CodecError("a validator's key or power is malformed")
    if validator.address != _octets(said["address"]):
        raise CodecError("a validator's address is not that of its key")
    return validator


def _block_id(said: Mapping[str, Any]) -> BlockId:
    parts = said["parts"]
    return BlockId(_octets(said["hash"]), _small(parts["total"]), _octets(parts["hash"]))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise CodecError("text is expected")
    return value


def _number(text: object) -> int:
    """An int64, which JSON holds as text."""
    if not isinstance(text, str) or not re.fullmatch(r"0|[1-9][0-9]{0,18}", text) or int(text) >= 2**63:
        raise CodecError("not a number of 64 bits as text")
    return int(text)


def _small(number: object) -> int:
    """An int32."""
    if type(number) is not int or not 0 <= number < 2**31:
        raise CodecError("not a number of 32 bits")
    return number


def _octets(text: object) -> bytes:
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise CodecError("not hexadecimal in capitals")
    return bytes.fromhex(text)


def _base64(text: object) -> bytes:
    try:
        value = base64.b64decode(_text(text), validate=True)
    except binascii.Error as error:
        raise CodecError("not base64") from error
    if base64.b64encode(value).decode() != text:
        raise CodecError("not the canonical base64")
    return value


def _time(text: object) -> Time:
    """RFC 3339 with up to nine digits of a second, the last of them not 0, in UTC."""
    found = _TIME.fullmatch(_text(text))
    if found is None or (found[2] or "1").endswith("0"):
        raise CodecError("not a time as CometBFT writes it")
    seconds = (datetime.fromisoformat(found[1]) - _EPOCH) // timedelta(seconds=1)
    return Time(seconds, int((found[2] or "0").ljust(9, "0")))
