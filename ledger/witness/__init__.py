"""A small witness: cosigns checkpoints of logs that only grow, keeps proof of those that don't.

An audit firm or the buyer of a company runs it, apart from the ledger's operator. It has a
key and a state of its own and needs nothing else of this program at work.
"""
