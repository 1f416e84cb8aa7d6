"""What orders the ledger."""
