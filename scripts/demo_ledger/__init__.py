"""Demonstrate a running ledger: fill it, show it, prove it, attack it."""
