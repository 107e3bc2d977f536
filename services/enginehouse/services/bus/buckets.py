"""The two JetStream buckets: `registrations`, which expires, and `desired`, which does not."""

import nats.errors
import nats.js.errors
from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import BucketNotFoundError, KeyDeletedError, KeyNotFoundError, NoKeysError
from nats.js.kv import KeyValue

from enginehouse.contract import DependencyError
from enginehouse.services.bus.connection import Bus

REGISTRATION_TTL_S = 30.0
DESIRED = KeyValueConfig(bucket="desired", history=1, storage=StorageType.FILE)
REGISTRATIONS = KeyValueConfig(bucket="registrations", history=1, ttl=REGISTRATION_TTL_S, storage=StorageType.FILE)


async def open_bucket(bus: Bus, config: KeyValueConfig) -> KeyValue:
    """The bucket, made if it is not there.

    Raises:
        DependencyError: JetStream does not answer.
    """
    try:
        try:
            return await bus.jetstream.key_value(str(config.bucket))
        except BucketNotFoundError:
            return await bus.jetstream.create_key_value(config)
    except (nats.errors.Error, nats.js.errors.APIError) as error:
        raise DependencyError(f"bucket {config.bucket} of NATS at {bus.url} does not answer: {error!r}") from error


class BucketStore:
    """Reads and writes one bucket whole. Every call raises DependencyError while NATS is away."""

    def __init__(self, bus: Bus, config: KeyValueConfig) -> None:
        self._bus = bus
        self._config = config

    async def put(self, key: str, value: bytes) -> None:
        """Writes a value; acknowledged when it returns."""
        bucket = await self._bucket()
        try:
            await bucket.put(key, value)
        except (nats.errors.Error, nats.js.errors.APIError, TimeoutError) as error:
            raise DependencyError(f"cannot write {key} to bucket {self._config.bucket}: {error!r}") from error

    async def delete(self, key: str) -> None:
        """Removes a value. Nothing happens when there is none."""
        bucket = await self._bucket()
        try:
            await bucket.delete(key)
        except (nats.errors.Error, nats.js.errors.APIError, TimeoutError) as error:
            raise DependencyError(f"cannot delete {key} from bucket {self._config.bucket}: {error!r}") from error

    async def entries(self) -> dict[str, bytes]:
        """Every key and value."""
        bucket = await self._bucket()
        try:
            keys = await bucket.keys()
        except NoKeysError:
            return {}
        except (nats.errors.Error, nats.js.errors.APIError, TimeoutError) as error:
            raise DependencyError(f"cannot read bucket {self._config.bucket}: {error!r}") from error
        entries: dict[str, bytes] = {}
        for key in keys:
            try:
                value = (await bucket.get(key)).value
            except (KeyNotFoundError, KeyDeletedError):
                continue
            if value is not None:  # an expiry marker
                entries[key] = value
        return entries

    async def _bucket(self) -> KeyValue:
        if not self._bus.is_connected:
            raise DependencyError(f"NATS at {self._bus.url} is away")
        return await open_bucket(self._bus, self._config)
