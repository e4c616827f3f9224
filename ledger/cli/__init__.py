"""The command `custody`: everything that operators, services and auditors do by hand.

Exit codes: 0 done or verified; 1 tampering found; 2 the call or the settings make no sense;
3 something needed is unavailable (database, service, file, key); 4 not everything could be
checked; 130 interrupted. Never 0 for "could not check", and never 1 for anything but tampering.
"""

from __future__ import annotations

from ledger.cli.group import main

__all__ = ["main"]
