"""Brings a database up to date, when control starts."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text

from enginehouse.contract import DependencyError

_LOCK = 0x656E67696E65  # one number for every control of the same database


def upgrade(connection: Connection) -> None:
    """Runs what is missing, in the transaction that `connection` has begun.

    Raises:
        DependencyError: the database was written by a newer program.
    """
    if connection.dialect.name == "postgresql":
        # bounds are for calls that somebody waits for; a migration takes what it takes, also another control's
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    config = configuration()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise DependencyError(
            f"the database's schema is not one of this version: {error}; upgrade enginehouse"
        ) from error


def configuration() -> Config:
    """Where the migrations are, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
