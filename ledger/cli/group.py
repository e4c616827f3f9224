"""The group of all commands: loads the one that is asked for, turns errors into exit codes."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import click

from ledger.errors import (
    CannotVerify,
    LedgerError,
    Refused,
    TamperDetected,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

TAMPERED, USAGE, UNAVAILABLE, INCOMPLETE = range(1, 5)
INTERRUPTED = 130

COMMANDS: Final[Mapping[str, str]] = {
    "up": "ledger.cli.up:up",
    "init": "ledger.cli.init:init",
    "serve": "api.serve:serve",
    "credentials": "ledger.cli.credentials:credentials",
    "emit": "ledger.cli.emit:emit",
    "show": "ledger.cli.show:show",
    "sources": "projections.sources_cli:sources",
    "verify": "ledger.cli.verify:verify",
    "export": "projections.exports.cli:export",
    "attest": "projections.attest_cli:attest",
    "rebuild": "projections.cli:rebuild",
    "doctor": "ledger.cli.doctor:doctor",
    "witness": "ledger.cli.witness:witness",
}
"""Where each command is, by name. The ledger imports neither read side nor HTTP shell: they
are plugged in here, and loaded when called."""

_CODES: Final[tuple[tuple[type[LedgerError], int], ...]] = (
    (TamperDetected, TAMPERED),
    (Unavailable, UNAVAILABLE),
    (CannotVerify, INCOMPLETE),
)


def load_command(name: str) -> click.Command | None:
    """Import a command by its name; None for a name that isn't one."""
    module, _, attribute = COMMANDS.get(name, "").partition(":")
    if not module:
        return None
    command: click.Command = getattr(import_module(module), attribute)
    return command


def exit_code(error: LedgerError) -> int:
    """Give the exit code of an error; what isn't listed is a call that makes no sense."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), USAGE)


class Custody(click.Group):
    """Commands by name, loaded one at a time so that none pays for the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Give the names in the order of first use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Load a command."""
        return load_command(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List every command with its first sentence."""
        found = ((name, load_command(name)) for name in self.list_commands(ctx))
        rows = [(name, command.get_short_help_str(200)) for name, command in found if command]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; leave with an honest exit code whatever happens."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.UsageError):
            raise
        except SystemExit as ending:
            # The HTTP server ends with 1 where it can't listen.
            ctx.exit(UNAVAILABLE if ending.code not in (None, 0) else 0)
        except (KeyboardInterrupt, click.Abort):
            ctx.exit(INTERRUPTED)
        except LedgerError as error:
            _say(error)
            ctx.exit(exit_code(error))
        except OSError as error:
            click.echo(f"custody: {error.filename or 'system'}: {error.strerror}", err=True)
            ctx.exit(UNAVAILABLE)
        except click.ClickException as error:
            error.show()
            ctx.exit(UNAVAILABLE)
        except Exception as error:  # noqa: BLE001 (Python's own code for these would be 1)
            # Where, but not the words: they may hold what somebody sent.
            traceback.print_tb(error.__traceback__, file=sys.stderr)
            click.echo(f"custody: a fault of this program: {type(error).__name__}", err=True)
            ctx.exit(UNAVAILABLE)


def _say(error: LedgerError) -> None:
    click.echo(f"custody: {error}", err=True)
    if isinstance(error, Refused):
        if error.pointer:
            click.echo(f"  at {error.pointer}", err=True)
        if error.hint:
            click.echo(f"  {error.hint}", err=True)


@click.group(cls=Custody, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="custody-ledger", prog_name="custody")
def main() -> None:
    """Keep a hash-chained audit ledger of customer records, and check it.

    Start with `custody up`: it makes a ledger with fresh credentials and serves it.
    Settings come from the environment (LEDGER_HOME and others; see README.md).

    \b
    Exit codes:
      0    done, or verified
      1    tampering found
      2    the call or the settings make no sense
      3    unavailable: database, service, file or key
      4    not everything could be checked
      130  interrupted
    """  # noqa: D301 (\b keeps click from joining the lines)
