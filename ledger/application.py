"""The log as an application of the event-sourcing library: what projections subscribe to.

The library would read settings from the process's environment, where any variable that
happens to bear an application's name wins over what it was given. Here everything comes
from the connection string and the schema, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.postgres import PostgresFactory
from eventsourcing.utils import Environment
from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eventsourcing.utils import EnvType

    from ledger.log import WholeLogReader

REST_OF_CONNECTION = "REST_OF_CONNECTION"
"""Name of the setting that holds connection parameters the library has no name for."""


def log_environment(dsn: str, schema: str) -> dict[str, str]:
    """Say in the library's terms where a ledger's log and views are.

    Args:
        dsn: connection string; a host that is a directory means a unix socket there.
        schema: the ledger's schema, which the migrations made.
    """
    given = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    return {
        "PERSISTENCE_MODULE": "ledger.application:LedgerFactory",
        "APPLICATION_RECORDER_TOPIC": "ledger.log:WholeLogReader",
        "CREATE_TABLE": "no",
        "POSTGRES_SCHEMA": schema,
        "POSTGRES_DBNAME": given.pop("dbname", "postgres"),
        "POSTGRES_HOST": given.pop("host", ""),
        "POSTGRES_PORT": given.pop("port", "5432"),
        "POSTGRES_USER": given.pop("user", ""),
        "POSTGRES_PASSWORD": given.pop("password", ""),
        "POSTGRES_POOL_SIZE": "1",
        "POSTGRES_MAX_OVERFLOW": "3",
        "POSTGRES_PRE_PING": "yes",
        # How long to wait for a connection; who waits longer can't be stopped meanwhile.
        "POSTGRES_CONNECT_TIMEOUT": "2",
        REST_OF_CONNECTION: make_conninfo(**given),
    }


class LedgerFactory(PostgresFactory):
    """Builds what the library needs, connected as the whole connection string says."""

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        rest = conninfo_to_dict(self.env.get(REST_OF_CONNECTION, ""))
        if isinstance(self.datastore.pool.kwargs, dict):
            self.datastore.pool.kwargs.update(rest)


class LedgerLog(Application[UUID]):
    """Every entry of one ledger, whole and in order; reading only."""

    name = "LedgerLog"

    def __init__(self, env: EnvType | None = None) -> None:
        """Open the log that `log_environment` described."""
        super().__init__(env)
        self.reader = cast("WholeLogReader", self.recorder)

    def construct_env(self, name: str, env: EnvType | None = None) -> Environment:
        """Leave the process's environment out."""
        settings: Mapping[str, str] = env or {}
        return Environment(name, dict(settings))
