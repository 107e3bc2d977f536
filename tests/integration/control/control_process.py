"""A control in a process of its own, to be killed: ``python control_process.py DATABASE_URL``. Prints its port."""

import asyncio
import sys

from google.protobuf.message import Message

from enginehouse.services.access_log import read_line
from enginehouse.services.control import Control, ControlSettings, SystemClock


class Nothing:
    """Takes events and desired state, and keeps none."""

    def publish(self, kind: str, subject_id: str, what: str, payload: Message) -> None:
        """Takes an event."""

    async def put(self, key: str, value: bytes) -> None:
        """Takes a value."""

    async def delete(self, key: str) -> None:
        """Takes a deletion."""

    async def entries(self) -> dict[str, bytes]:
        """Has none."""
        return {}


async def main(database_url: str) -> None:
    """Runs until it is killed."""
    nothing = Nothing()
    settings = ControlSettings(database_url=database_url, resolve_interval_s=0.2)
    control = Control(settings, clock=SystemClock(), events=nothing, desired=nothing, read_line=read_line)
    started = await control.start()
    sys.stdout.write(f"{started.port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
