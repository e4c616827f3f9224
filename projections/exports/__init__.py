"""Evidence that leaves the ledger: bundles that verify without it."""
