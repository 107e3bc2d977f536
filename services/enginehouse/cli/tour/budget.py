"""Stop 4: a budget that 32 requests at once cannot overspend."""

import asyncio

import openai

from enginehouse.cli.money import usd
from enginehouse.cli.tour.guide import ECHO, Tour
from enginehouse.cli.tour.limits import holds_in
from enginehouse.contract import DependencyError
from enginehouse.v1 import admin_pb2

_REQUESTS = 32
_CAP_NANOUSD = 10_000_000


async def budget(tour: Tour) -> None:
    """Fires 32 requests at once against a budget for ten, and shows the ledger."""
    tour.heading(4, "Budgets: hard, whatever comes at once")
    name = await tour.make_budget("tiny", _CAP_NANOUSD)
    await _until_limited(tour)
    tour.say(f"a budget of {usd(_CAP_NANOUSD)} USD; a request to echo costs 0.001 USD; {_REQUESTS} requests at once:")
    samples: list[admin_pb2.LimitStatus] = []
    watching = asyncio.create_task(_sample(tour, name, samples))
    results = await asyncio.gather(*(_ask(tour) for _ in range(_REQUESTS)))
    served = sum(1 for result in results if result is None)
    refused = [result for result in results if result is not None]
    tour.say(
        f"  {served} served, {len(refused)} refused with {sorted({error.status_code for error in refused})}", "green"
    )
    if refused:
        body = refused[-1].body
        tour.say(f"  {body.get('message') if isinstance(body, dict) else refused[-1].message}")
    await _until_settled(tour, name, served)
    watching.cancel()
    status = (await tour.admin.GetLimit(admin_pb2.GetLimitRequest(name=name))).status
    highest = max((one.spent + one.allotted for one in samples), default=0)
    tour.say(f"  the ledger: spent {usd(status.spent)} USD of {usd(_CAP_NANOUSD)}; the highest spent + held seen in ")
    tour.say(f"  {len(samples)} samples was {usd(highest)} USD", "green")
    if highest > _CAP_NANOUSD or status.spent > _CAP_NANOUSD:
        raise DependencyError("the budget was overspent")


async def _ask(tour: Tour) -> openai.APIStatusError | None:
    try:
        await tour.client("tiny").chat.completions.create(model=ECHO, messages=[{"role": "user", "content": "one"}])
    except openai.APIStatusError as error:
        return error
    return None


async def _sample(tour: Tour, name: str, samples: list[admin_pb2.LimitStatus]) -> None:
    while True:
        samples.append((await tour.admin.GetLimit(admin_pb2.GetLimitRequest(name=name))).status)
        await asyncio.sleep(0.01)


async def _until_limited(tour: Tour) -> None:
    """Waits until the router knows the budget: until then there is nothing to show."""

    async with asyncio.timeout(10):
        while not await holds_in(tour, "tiny", ECHO):
            await asyncio.sleep(0.02)


async def _until_settled(tour: Tour, name: str, served: int) -> None:
    async with asyncio.timeout(10):
        while True:
            status = (await tour.admin.GetLimit(admin_pb2.GetLimitRequest(name=name))).status
            if status.spent >= served * 1_000_000:
                return
            await asyncio.sleep(0.05)
