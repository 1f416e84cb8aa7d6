"""The audit trail: the ledger's entries as events, resolved by this node's keys and searchable."""
