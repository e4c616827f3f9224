"""`custody witness`: a witness for ledgers of others, which needs no database server."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ledger.cli.terminal import json_option, print_json
from ledger.config import read_settings
from ledger.errors import CannotVerify, TamperDetected
from ledger.witness.decision import Doubt
from ledger.witness.place import make_place, open_place
from ledger.witness.witness import Witness

if TYPE_CHECKING:
    from ledger.witness.evidence import Evidence
    from ledger.witness.store import WitnessStore

LISTEN = "127.0.0.1:8421"
BACKLOG = 256


@click.group()
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the witness keeps key, state and evidence (LEDGER_HOME/witness).",
)
@click.pass_context
def witness(context: click.Context, directory: Path | None) -> None:
    """Cosign checkpoints of ledgers that others run, and keep proof if one splits.

    For an audit firm, or the buyer of a company: run it where the ledger's operator has no
    access. It keeps the newest checkpoint of each ledger and cosigns the next one only if that
    ledger's tree has grown from it. A ledger that shows two trees is refused, and both
    checkpoints, which it signed itself, are kept as evidence.

    \b
      custody witness init witness.example/w1
      custody witness add VERIFIER-KEY-OF-THE-LEDGER
      custody witness serve --listen 0.0.0.0:8421

    It needs no PostgreSQL. Never restore an older copy of its directory over a newer one:
    a witness that forgot what it cosigned can be led to cosign another tree.
    """  # noqa: D301 (\b keeps click from joining the lines)
    context.obj = (directory or read_settings().home / "witness").absolute()


@witness.command()
@click.argument("name")
@json_option
@click.pass_obj
def init(directory: Path, name: str, *, as_json: bool) -> None:
    """Make a witness with a key of its own.

    NAME tells it from all other witnesses for ever: a domain and path of yours, without
    scheme, such as witness.example/w1. Prints the verifier key, which goes to whoever is to
    trust the cosignatures.
    """
    key = make_place(directory, name).verifier.verifier_key()
    if as_json:
        print_json({"name": name, "verifier_key": key, "directory": str(directory)})
        return
    click.echo(f"witness       {name}")
    click.echo(f"verifier key  {key}")
    click.echo(f"directory     {directory}  (key.json is secret)")


@witness.command()
@click.argument("verifier_key")
@click.option("--origin", help="The ledger's origin, where its key has another name.")
@click.pass_obj
def add(directory: Path, verifier_key: str, origin: str | None) -> None:
    """Watch a ledger from now on; a running witness does so at once.

    VERIFIER_KEY is what `custody init` printed to the ledger's operator. Get it by a way that
    you trust. A second key of the same ledger is trusted beside the first.
    """
    signer, store, evidence = open_place(directory)
    try:
        found = Witness(signer, store, evidence).watch(verifier_key, origin)
    finally:
        store.close()
    click.echo(f"watching {found}")


@witness.command()
@click.option("--listen", default=LISTEN, show_default=True, help="Address and port.")
@click.pass_obj
def serve(directory: Path, listen: str) -> None:
    """Answer `add-checkpoint` over HTTP until Ctrl-C or SIGTERM.

    Whoever may reach it need not be let in: a request counts by the ledger's signature alone.
    Put TLS before it where the way is not your own.
    """
    import uvicorn  # noqa: PLC0415 (the other commands never need it)

    from ledger.cli.witness_server import server_config  # noqa: PLC0415
    from ledger.witness.asgi import WitnessApp  # noqa: PLC0415

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    signer, store, evidence = open_place(directory)
    with _listening(listen) as listener:
        host, port = listener.getsockname()[:2]
        app = WitnessApp(Witness(signer, store, evidence))
        click.echo(f"witness {signer.verifier.verifier_key()}", err=True)
        watched = ", ".join(store.origins()) or "none yet (custody witness add)"
        click.echo(f"ledgers: {watched}; listening on http://{host}:{port}", err=True)
        # The server takes the signal while it runs, and raises it again when it is done.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            uvicorn.Server(server_config(app)).run(sockets=[listener])
        except KeyboardInterrupt:
            pass
        finally:
            store.close()


@witness.command()
@json_option
@click.pass_obj
def status(directory: Path, *, as_json: bool) -> None:
    """List what the witness holds of each ledger, and the evidence it keeps.

    Ends with 1 if a ledger has signed two trees that contradict each other, with 4 if one was
    shown a tree that nobody could prove to have grown from what was cosigned.
    """
    signer, store, kept = open_place(directory)
    try:
        logs = [_log_status(store, origin) for origin in store.origins()]
        found = [one for one in kept.read() if not _is_settled(store, one)]
    finally:
        store.close()
    if as_json:
        documents = [_evidence_document(one) for one in found]
        key = signer.verifier.verifier_key()
        print_json({"verifier_key": key, "ledgers": logs, "evidence": documents})
    else:
        click.echo(f"witness  {signer.verifier.verifier_key()}")
        for log in logs:
            click.echo(_log_line(log))
        for one in found:
            click.echo(f"  {one.doubt}  {one.origin}  size {one.size}  {one.noticed}  {one.path}")
    _raise_doubts(found)


def _listening(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise click.BadParameter("expected an address and a port", param_hint="--listen")
    host = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, backlog=BACKLOG)


def _log_status(store: WitnessStore, origin: str) -> dict[str, Any]:
    newest = store.newest(origin)
    return {
        "origin": origin,
        "size": newest.size if newest else None,
        "root": newest.root.hex() if newest else None,
        "cosigned": _written(newest.time_s) if newest else None,
        "checkpoints": store.count(origin),
    }


def _written(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _log_line(log: dict[str, Any]) -> str:
    if log["size"] is None:
        return f"  {log['origin']}  nothing cosigned yet"
    return f"  {log['origin']}  size {log['size']}  root {log['root']}  {log['cosigned']}"


def _evidence_document(one: Evidence) -> dict[str, Any]:
    return {
        "doubt": one.doubt,
        "origin": one.origin,
        "size": one.size,
        "root": one.root.hex(),
        "held_size": one.held_size,
        "noticed": one.noticed,
        "file": str(one.path),
    }


def _is_settled(store: WitnessStore, one: Evidence) -> bool:
    """Tell whether a tree that came without proof was proved and cosigned later."""
    if one.doubt is not Doubt.UNPROVED:
        return False
    held = store.at_size(one.origin, one.size)
    return held is not None and held.root == one.root


def _raise_doubts(found: list[Evidence]) -> None:
    proved = sorted({one.origin for one in found if one.doubt is not Doubt.UNPROVED})
    if proved:
        raise TamperDetected(f"{', '.join(proved)}: signed two trees that contradict each other")
    if found:
        raise CannotVerify(
            f"{len(found)} times a tree came without a proof that it grew from what was cosigned"
        )
