"""PostgreSQL under the ledger: the embedded server, migrations, and their SQL."""
