"""Run the command as `python -m ledger.cli`."""

from __future__ import annotations

from ledger.cli import main

if __name__ == "__main__":
    main(prog_name="custody")
