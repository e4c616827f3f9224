"""Write side of the Custody Ledger: what happened to customers' records, provably."""
