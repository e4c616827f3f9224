"""Read the command line and run every group of figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from ledger.postgres.embedded import EmbeddedPostgres
from scripts.benchmarks.figures import as_json, show
from scripts.benchmarks.options import Options
from scripts.benchmarks.place import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.benchmarks.figures import Figure

GROUPS = ("appending", "client", "verifying", "rebuilding", "proving", "browser")
"""Modules of this package, in the order of running: those that fill the ledger come first."""


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", action="store_true", help="results on standard output")
    parser.add_argument(
        "--entries", type=int, help="entries of the large ledger (1,000,000; quick: 100,000)"
    )
    parser.add_argument(
        "--only", choices=_groups(), action="append", help="this group alone; may be repeated"
    )
    arguments = parser.parse_args()
    entries = arguments.entries or (100_000 if arguments.quick else 1_000_000)
    options = Options(quick=arguments.quick, entries=entries)
    conditions, figures = run(options, arguments.only or _groups())
    if arguments.json:
        results = [as_json(figure) for figure in figures]
        print(json.dumps({"conditions": conditions, "results": results}, indent=1))


def run(options: Options, groups: Sequence[str]) -> tuple[dict[str, Any], list[Figure]]:
    """Measure groups in a place of their own, which is removed afterwards."""
    home = Path(tempfile.mkdtemp(prefix="custody-bench-"))
    home.chmod(0o711)
    postgres = EmbeddedPostgres(home / "postgres")
    place: Place | None = None
    figures: list[Figure] = []
    try:
        postgres.start()
        conditions = _conditions(postgres.dsn, options)
        print(json.dumps(conditions, indent=1), file=sys.stderr)
        place = Place(home=home, dsn=postgres.dsn)
        place.prepare()
        for group in groups:
            for figure in import_module(f"scripts.benchmarks.{group}").measure(place, options):
                show(figure)
                figures.append(figure)
    finally:
        if place is not None:
            place.kill()
        postgres.stop()
        shutil.rmtree(home, ignore_errors=True)
    return conditions, figures


def _groups() -> list[str]:
    return [group for group in GROUPS if (Path(__file__).parent / f"{group}.py").exists()]


def _conditions(dsn: str, options: Options) -> dict[str, Any]:
    with psycopg.connect(dsn) as connection:
        show_setting = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
        database = {
            name: (connection.execute(f"SHOW {name}").fetchone() or ("",))[0]
            for name in show_setting
        }
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "database": database,
        "load_before": os.getloadavg()[0],
        "entries_of_the_large_ledger": options.entries,
    }


if __name__ == "__main__":
    main()
