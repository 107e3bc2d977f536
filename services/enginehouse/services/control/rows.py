"""SQL that both databases know and that SQLAlchemy spells for each of them apart."""

from sqlalchemy import ColumnElement, CursorResult, Insert, inspect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from enginehouse.services.control.schema import Base, CounterRow


async def insert_missing(session: AsyncSession, row: Base) -> bool:
    """Inserts a row unless its primary key is taken, and says whether it did.

    Waits for a transaction that is inserting the same key. The object itself stays outside the session.
    """
    mapper = inspect(type(row))
    values = {column.key: getattr(row, column.key) for column in mapper.column_attrs}
    insert = postgresql.insert if _is_postgresql(session) else sqlite.insert
    result = await session.execute(insert(type(row)).values(values).on_conflict_do_nothing())
    return isinstance(result, CursorResult) and result.rowcount == 1


async def next_number(session: AsyncSession, counter: str) -> int:
    """One more than the last number of `counter`; the first is 1. Others wait until the transaction ends."""
    grown: ColumnElement[int] = CounterRow.__table__.c.value + 1
    statement: Insert
    if _is_postgresql(session):
        statement = postgresql.insert(CounterRow).values(name=counter, value=1)
        statement = statement.on_conflict_do_update(index_elements=["name"], set_={"value": grown})
    else:
        statement = sqlite.insert(CounterRow).values(name=counter, value=1)
        statement = statement.on_conflict_do_update(index_elements=["name"], set_={"value": grown})
    return (await session.execute(statement.returning(CounterRow.value))).scalar_one()


def _is_postgresql(session: AsyncSession) -> bool:
    return session.get_bind().dialect.name == "postgresql"
