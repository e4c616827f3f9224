"""Keys of a ledger: what signs, what finds, what wraps."""
