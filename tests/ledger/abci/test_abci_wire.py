"""The ABCI codec beside generated protobuf code (cosmpy's) and streams that a real CometBFT 0.38 sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cosmpy.protos.tendermint.abci import types_pb2 as pb
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from ledger.abci import wire
from ledger.abci.messages import (
    ACCEPT,
    REJECT,
    Answer,
    Block,
    Checked,
    Finalized,
    Info,
    InitChain,
    Misbehavior,
    Proposal,
    Snapshot,
    ValidatorUpdate,
)
from ledger.abci.proto3 import field, integer, varint
from ledger.errors import CodecError

STREAMS = Path(__file__).resolve().parents[2] / "data/abci"

int64 = st.integers(-(2**63), 2**63 - 1)
uint64 = st.integers(0, 2**64 - 1)
uint32 = st.integers(0, 2**32 - 1)
nanos = st.integers(0, 999_999_999)
octets = st.binary(max_size=40)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
keys = st.binary(min_size=32, max_size=32)
txs = st.lists(octets, max_size=4)
times = st.integers(-(2**40) * 10**9, 2**40 * 10**9)

updates = st.builds(ValidatorUpdate, keys, int64)
snapshots = st.builds(Snapshot, uint64, uint32, uint32, octets, octets)
misbehavior = st.builds(Misbehavior, st.sampled_from([1, 2]), octets, int64, times, int64, int64)
blocks = st.tuples(txs.map(tuple), int64, times, octets, st.lists(misbehavior, max_size=2).map(tuple))
proposals = blocks.map(lambda parts: Proposal(*parts))
verdicts = st.builds(Checked, uint32, words)


def messages_of(stream: bytes) -> list[bytes]:
    found, at = [], 0
    while (next_one := wire.unframed(stream, at)) is not None:
        message, at = next_one
        found.append(message)
    assert at == len(stream)
    return found


def set_time(place: Any, time_ns: int) -> None:
    place.seconds, place.nanos = divmod(time_ns, 10**9)


def set_misbehavior(place: Any, found: tuple[Misbehavior, ...]) -> None:
    for each in found:
        one = place.add(type=each.kind, height=each.height, total_voting_power=each.total_power)
        one.validator.address, one.validator.power = each.address, each.power
        set_time(one.time, each.time_ns)


def read(**asked: Any) -> wire.Request:
    """What our codec makes of a request that the oracle wrote."""
    return wire.request(pb.Request(**asked).SerializeToString())


def said(response: bytes, kind: str) -> Any:
    """What the oracle makes of a response that our codec wrote."""
    message = pb.Response.FromString(response)
    assert message.WhichOneof("value") == kind
    assert not len(UnknownFieldSet(message)) and not len(UnknownFieldSet(getattr(message, kind)))
    return getattr(message, kind)


# --- requests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 3, 4])
def test_what_cometbft_sent_is_read_as_the_oracle_reads_it(number: int) -> None:
    kinds = {
        "info": wire.InfoRequest,
        "flush": wire.Flush,
        "check_tx": wire.CheckTx,
        "init_chain": InitChain,
        "prepare_proposal": wire.PrepareProposal,
        "process_proposal": wire.ProcessProposal,
        "finalize_block": Block,
        "commit": wire.Commit,
    }
    messages = messages_of((STREAMS / f"abci_socket_conn{number}.bin").read_bytes())
    assert len(messages) > 1
    for message in messages:
        oracle, ours = pb.Request.FromString(message), wire.request(message)
        kind = oracle.WhichOneof("value")
        assert type(ours) is kinds[kind]
        asked = getattr(oracle, kind)
        if kind == "finalize_block":
            assert list(ours.txs) == list(asked.txs)
            assert (ours.height, ours.hash, ours.proposer) == (asked.height, asked.hash, asked.proposer_address)
            assert ours.time_ns == asked.time.ToNanoseconds()
        if kind == "check_tx":
            assert (ours.tx, ours.recheck) == (asked.tx, asked.type == 1)


def test_the_genesis_of_the_recorded_network_is_read() -> None:
    asked = wire.request(messages_of((STREAMS / "abci_socket_conn4.bin").read_bytes())[0])
    assert isinstance(asked, InitChain)
    assert asked.chain_id == "chain-2P21zR"
    assert [(len(each.public_key), each.power) for each in asked.validators] == [(32, 1)] * 4
    assert (asked.initial_height, asked.app_state) == (1, b"")


@given(words, words, octets, int64, octets, st.booleans())
def test_simple_requests(text: str, other: str, data: bytes, number: int, tx: bytes, again: bool) -> None:
    assert read(echo={"message": text}) == wire.Echo(text)
    assert read(flush={}) == wire.Flush()
    assert read(info={"version": text, "abci_version": other, "p2p_version": 8}) == wire.InfoRequest(text, other)
    assert read(query={"path": text, "data": data, "height": number, "prove": again}) == wire.Query(text, data, number)
    assert read(check_tx={"tx": tx, "type": int(again)}) == wire.CheckTx(tx, again)
    assert read(commit={}) == wire.Commit()
    assert read(list_snapshots={}) == wire.ListSnapshots()
    assert read(extend_vote={"txs": [tx], "height": number}) == wire.ExtendVote()
    assert read(verify_vote_extension={"vote_extension": data}) == wire.VerifyVoteExtension(data)


@given(times, words, st.lists(updates, max_size=3), octets, int64)
def test_init_chain(time_ns: int, chain: str, validators: list[ValidatorUpdate], state: bytes, height: int) -> None:
    asked = pb.Request()
    asked.init_chain.chain_id, asked.init_chain.app_state_bytes, asked.init_chain.initial_height = chain, state, height
    asked.init_chain.consensus_params.block.max_bytes = 5
    set_time(asked.init_chain.time, time_ns)
    for each in validators:
        asked.init_chain.validators.add(power=each.power).pub_key.ed25519 = each.public_key
    ours = wire.request(asked.SerializeToString())
    assert ours == InitChain(time_ns, chain, tuple(validators), state, height)


@given(proposals, int64, octets)
def test_a_block_in_its_three_requests(proposal: Proposal, most: int, digest: bytes) -> None:
    common = {"txs": proposal.txs, "height": proposal.height, "proposer_address": proposal.proposer}
    for kind, more in (
        ("prepare_proposal", {"max_tx_bytes": most}),
        ("process_proposal", {"hash": digest}),
        ("finalize_block", {"hash": digest}),
    ):
        asked = pb.Request(**{kind: {**common, **more, "next_validators_hash": digest}})
        body = getattr(asked, kind)
        set_time(body.time, proposal.time_ns)
        set_misbehavior(body.misbehavior, proposal.misbehavior)
        ours = wire.request(asked.SerializeToString())
        if kind == "prepare_proposal":
            assert ours == wire.PrepareProposal(proposal._replace(max_tx_bytes=most))
        elif kind == "process_proposal":
            assert ours == wire.ProcessProposal(proposal._replace(hash=digest))
        else:
            height, time_ns, proposer = proposal.height, proposal.time_ns, proposal.proposer
            assert ours == Block(proposal.txs, height, time_ns, proposer, digest, proposal.misbehavior)


@given(snapshots, octets, uint64, uint32, uint32, words)
def test_requests_of_state_sync(
    snapshot: Snapshot, data: bytes, height: int, kind: int, chunk: int, sender: str
) -> None:
    assert read(offer_snapshot={"snapshot": snapshot._asdict(), "app_hash": data}) == wire.OfferSnapshot(snapshot, data)
    wanted = {"height": height, "format": kind, "chunk": chunk}
    assert read(load_snapshot_chunk=wanted) == wire.LoadSnapshotChunk(height, kind, chunk)
    taken = read(apply_snapshot_chunk={"index": chunk, "chunk": data, "sender": sender})
    assert taken == wire.ApplySnapshotChunk(chunk, data, sender)


def test_fields_that_are_not_known_are_skipped() -> None:
    more = integer(90, 7) + field(91, b"later") + varint(92 << 3 | 5) + bytes(4) + varint(93 << 3 | 1) + bytes(8)
    assert wire.request(field(8, field(1, b"tx") + more)) == wire.CheckTx(b"tx", False)


def test_an_embedded_message_that_comes_twice_is_merged() -> None:
    twice = field(8, field(1, b"first") + integer(2, 1)) + field(8, field(1, b"second"))
    assert wire.request(twice) == wire.CheckTx(b"second", True)
    assert pb.Request.FromString(twice).check_tx == pb.RequestCheckTx(tx=b"second", type=1)


def test_text_that_is_not_utf8_is_replaced() -> None:
    assert wire.request(field(6, field(2, b"/p2p/\xff"))) == wire.Query("/p2p/�", b"", 0)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        field(99, b""),  # a request that ABCI 2.0 has not
        field(21, b""),
        b"\x08",  # a varint that does not come
        b"\x12\x05ab",  # fewer bytes than said
        b"\x80" * 11,
        b"\x00\x00",  # field number 0
        b"\x13\x14",  # a group
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        field(5, field(4, field(1, field(2, bytes(33))))),  # a validator with a secp256k1 key
    ],
)
def test_what_is_no_request_is_refused(message: bytes) -> None:
    with pytest.raises(CodecError):
        wire.request(message)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(message: bytes) -> None:
    try:
        wire.request(message)
        wire.unframed(message)
    except CodecError:
        return


@given(st.data())
def test_a_damaged_request_is_read_or_refused(data: st.DataObject) -> None:
    messages = messages_of((STREAMS / "abci_socket_conn4.bin").read_bytes())
    message = bytearray(data.draw(st.sampled_from(messages)))
    for _ in range(3):
        if message:
            message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    try:
        wire.request(bytes(message))
    except CodecError:
        return


# --- responses -----------------------------------------------------------------------------------------------------


@given(words, octets, int64, uint64, uint32)
def test_simple_responses(text: str, data: bytes, number: int, version: int, code: int) -> None:
    assert said(wire.exception(text), "exception").error == text
    assert said(wire.echoed(text), "echo").message == text
    said(wire.flushed(), "flush")
    info = said(wire.info(Info(number, data, text, text, version)), "info")
    assert (info.last_block_height, info.last_block_app_hash, info.app_version) == (number, data, version)
    assert (info.data, info.version) == (text, text)
    assert said(wire.chain_begun(data), "init_chain") == pb.ResponseInitChain(app_hash=data)
    query = said(wire.answered(Answer(code, data, text, number)), "query")
    assert query == pb.ResponseQuery(code=code, value=data, log=text, height=number)
    assert said(wire.checked(Checked(code, text)), "check_tx") == pb.ResponseCheckTx(code=code, log=text)
    assert said(wire.committed(number), "commit").retain_height == number
    assert said(wire.vote_extended(), "extend_vote").vote_extension == b""


@given(st.booleans(), txs)
def test_responses_to_proposals(accepted: bool, chosen: list[bytes]) -> None:
    verdict = ACCEPT if accepted else REJECT
    assert said(wire.processed(accepted), "process_proposal").status == verdict
    assert said(wire.vote_extension_verified(accepted), "verify_vote_extension").status == verdict
    assert list(said(wire.prepared(chosen), "prepare_proposal").txs) == chosen


@given(st.lists(verdicts, max_size=4), st.lists(updates, max_size=3), octets)
def test_the_response_to_a_block(results: list[Checked], changes: list[ValidatorUpdate], app_hash: bytes) -> None:
    answer = said(wire.finalized(Finalized(results, changes, app_hash)), "finalize_block")
    assert [(each.code, each.log) for each in answer.tx_results] == [tuple(each) for each in results]
    assert [(each.pub_key.ed25519, each.power) for each in answer.validator_updates] == [
        tuple(each) for each in changes
    ]
    assert answer.app_hash == app_hash


@given(st.lists(snapshots, max_size=3), octets, st.integers(0, 5))
def test_responses_of_state_sync(listed: list[Snapshot], chunk: bytes, result: int) -> None:
    answer = said(wire.snapshots(listed), "list_snapshots")
    assert [Snapshot(s.height, s.format, s.chunks, s.hash, s.metadata) for s in answer.snapshots] == listed
    assert said(wire.snapshot_offered(result), "offer_snapshot").result == result
    assert said(wire.snapshot_chunk(chunk), "load_snapshot_chunk").chunk == chunk
    assert said(wire.chunk_applied(result), "apply_snapshot_chunk").result == result


# --- framing -------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_frames_come_back_one_after_the_other(messages: list[bytes]) -> None:
    stream = b"".join(wire.framed(each) for each in messages)
    assert messages_of(stream) == messages
    for cut in range(len(stream)):
        whole, at = 0, 0
        while (found := wire.unframed(stream[:cut], at)) is not None:
            whole, at = whole + 1, found[1]
        assert whole < len(messages)


def test_a_frame_beyond_the_limit_is_refused_before_it_came() -> None:
    assert wire.unframed(varint(wire.MESSAGE_BYTES)) is None
    for head in (varint(wire.MESSAGE_BYTES + 1), b"\xff" * 5, varint(1 << 40)):
        with pytest.raises(CodecError):
            wire.unframed(head)
    assert wire.unframed(b"\xff" * 4) is None
