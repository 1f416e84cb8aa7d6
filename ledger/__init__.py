"""The ledger: signed entries, their Merkle tree, checkpoints and proofs; a library of its own.

The pure modules (codec, record, entry, merkle, checkpoint, tiles, proof, verify) can be imported alone as an offline
verifier: they load no database, socket or clock.
"""
