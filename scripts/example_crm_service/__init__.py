"""A tiny CRM that emits events with `ledger.client`: an example to copy from."""
