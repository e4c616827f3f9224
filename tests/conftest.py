from __future__ import annotations

pytest_plugins = [
    "tests.fixtures.postgres",
    "tests.fixtures.ledgers",
    "tests.fixtures.bundles",
    "tests.fixtures.peers",
    "tests.fixtures.witnesses",
]
