"""What happens to a world: requests, faults and an operator, one after the other."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from enginehouse.contract import EnginehouseError
from tests.simulation.control import CONTROL, SETTINGS
from tests.simulation.loop import exponential_s
from tests.simulation.profile import draw_weather
from tests.simulation.router import RouterProcess
from tests.simulation.scene import Rules, another_cap, draw_request
from tests.simulation.world import World

_BURST_MAX = 4


async def storm(world: World) -> None:
    """As many steps as the world is to have."""
    rng, profile = world.rng, world.profile
    gap_s = rng.choice((0.02, 0.1, 0.4))
    for _ in range(world.steps):
        is_pause = rng.random() < profile.pause_rate
        await asyncio.sleep(exponential_s(rng, 9.0 if is_pause else gap_s))
        if profile.faults and rng.random() < profile.fault_rate:
            await _FAULTS[rng.choice(profile.faults)](world)
        else:
            _ask(world)


def _ask(world: World) -> None:
    awake = [envoy for envoy in world.envoys if not envoy.process.is_dead]
    for _ in range(world.rng.choice((1, 1, 1, 1, _BURST_MAX)) if awake else 0):
        world.profile.asked += 1
        request = draw_request(world.rng, f"q{world.profile.asked}")
        envoy = world.rng.choice(awake)
        world.say(envoy.start, f"{request.id} of {request.principal.key} arrives")
        envoy.ask(request)


async def _kill_router(world: World) -> None:
    running = world.every_router()
    if not running:
        return
    router = world.rng.choice(running)
    world.kill_router(router)
    if world.rng.random() < 0.8:
        _later(world, partial(_restart, world, router))


def _restart(world: World, router: RouterProcess) -> None:
    if world.routers[router.router] is router:
        world.boot_router(router.router)


async def _stop_router(world: World) -> None:
    running = [router for router in world.every_router() if router.process.is_running]
    if not running:
        return
    router = world.rng.choice(running)
    world.loop.stop_process(router.process)
    world.say(router.router, "is stopped")

    def wake() -> None:
        if router.process.is_stopped and not router.process.is_dead:
            world.say(router.router, "goes on")
            world.loop.resume(router.process)

    _later(world, wake, mean_s=world.rng.choice((1.0, 30.0)))


async def _oversleep(world: World) -> None:
    """A router is stopped for about a term, and asked as soon as it goes on, by its memory or not."""
    await _stop_router(world)
    stopped = [router for router in world.routers.values() if router.process.is_stopped]
    await asyncio.sleep(world.rng.uniform(0.8, 1.3) * SETTINGS.term_s)
    for router in stopped:
        if router.process.is_stopped and not router.process.is_dead:
            world.say(router.router, "goes on")
            world.loop.resume(router.process)
    for _ in range(3):
        _ask(world)


async def _replace_router(world: World) -> None:
    await _stop_router(world)
    stopped = [router for router in world.routers.values() if router.process.is_stopped]
    if stopped:
        world.boot_router(stopped[0].router)


async def _kill_control(world: World) -> None:
    if world.control.process.is_dead:
        return
    world.control.kill()
    world.say(CONTROL, "is killed")

    def restart() -> None:
        if world.control.process.is_dead:
            world.control.boot()
            world.say(CONTROL, "starts")

    _later(world, restart)


async def _starve(world: World) -> None:
    """Control is away until terms end, and requests come just then."""
    was_dead = world.control.process.is_dead
    if was_dead:
        return
    world.control.kill()
    world.say(CONTROL, "is killed")
    await asyncio.sleep(world.rng.uniform(0.4, 0.95) * SETTINGS.term_s)
    for _ in range(6):
        await asyncio.sleep(world.rng.uniform(0.01, 0.04) * SETTINGS.term_s)
        _ask(world)
    if world.control.process.is_dead:
        world.control.boot()
        world.say(CONTROL, "starts")


async def _kill_envoy(world: World) -> None:
    envoy = world.rng.choice(world.envoys)
    if envoy.process.is_dead:
        return
    envoy.kill()
    world.say(envoy.start, "is killed")

    def restart() -> None:
        if envoy.process.is_dead:
            envoy.boot()
            world.say(envoy.start, "starts")

    _later(world, restart)


async def _kill_host(world: World) -> None:
    await _kill_envoy(world)
    for router in world.every_router():
        world.kill_router(router)
        if world.rng.random() < 0.5:
            _later(world, partial(_restart, world, router))


async def _lose_disk(world: World) -> None:
    envoy = world.rng.choice(world.envoys)
    if not envoy.process.is_dead:
        envoy.lose_disk()
        world.say(envoy.start, "loses what was not yet on disk")


async def _kill_node(world: World) -> None:
    node = world.rng.choice(world.scene.replicas).node
    if node in world.engines.down:
        return
    world.engines.kill_node(node)
    world.say(node, "is killed")
    world.publish()

    def restart() -> None:
        world.engines.down.discard(node)
        world.say(node, "starts")
        world.publish()

    _later(world, restart)


async def _cut_link(world: World) -> None:
    ends = [*world.router_names, *(envoy.name for envoy in world.envoys), CONTROL, CONTROL]
    one, other = world.rng.sample(ends, 2)
    if one == other:
        return
    link = frozenset({one, other})
    world.network.cut.add(link)
    world.network.break_streams()
    world.say("network", f"is cut between {one} and {other}")

    def mend() -> None:
        world.network.cut.discard(link)
        world.say("network", f"is whole between {one} and {other}")

    _later(world, mend, mean_s=world.rng.choice((1.0, 10.0)))


async def _change_weather(world: World) -> None:
    world.network.weather = draw_weather(world.rng)
    world.say("network", f"has {world.network.weather}")


async def _stop_broker(world: World) -> None:
    world.broker.is_up = False
    world.say("broker", "is killed")

    def restart() -> None:
        world.broker.is_up = True
        world.say("broker", "starts")
        world.publish()

    _later(world, restart)


async def _change_rules(world: World) -> None:
    allow = world.rng.choice((frozenset({"eu"}), frozenset({"de"}), frozenset({"ch"}), frozenset({"us/va"})))
    world.rules = Rules({**world.rules.allow, "acme": allow})
    world.say("operator", f"allows acme {sorted(allow)}")
    world.publish()


async def _change_cap(world: World) -> None:
    if not world.limits or world.control.process.is_dead:
        return
    limit = another_cap(world.rng, world.limits[world.rng.choice(sorted(world.limits))])
    world.say("operator", f"sets limit {limit.id} to {limit.cap}")
    try:
        await world.control.set_cap(limit)
    except EnginehouseError as error:
        world.say("operator", f"is refused: {error.message}")
        return
    world.limits[limit.id] = limit
    world.publish()


async def _delete_limit(world: World) -> None:
    if not world.limits or world.control.process.is_dead:
        return
    limit = world.limits.pop(world.rng.choice(sorted(world.limits)))
    world.known.deleted.add(limit.id)
    world.say("operator", f"deletes limit {limit.id}")
    await world.control.delete(limit)
    world.known.caps = {key: caps for key, caps in world.known.caps.items() if key[0] != limit.id}
    world.publish()
    if world.rng.random() < 0.5:
        world.limits[limit.id] = limit
        world.say("operator", f"creates limit {limit.id}")
        await world.control.create(limit)
        world.publish()


def _later(world: World, action: Callable[[], None], mean_s: float = 0.0) -> None:
    world.loop.call_later(exponential_s(world.rng, mean_s or world.rng.choice((0.3, 3.0, 15.0))), action)


_FAULTS: dict[str, Callable[[World], Awaitable[None]]] = {
    "kill router": _kill_router,
    "stop router": _stop_router,
    "oversleep": _oversleep,
    "replace router": _replace_router,
    "kill control": _kill_control,
    "starve": _starve,
    "kill envoy": _kill_envoy,
    "kill host": _kill_host,
    "lose disk": _lose_disk,
    "kill node": _kill_node,
    "cut link": _cut_link,
    "change weather": _change_weather,
    "stop broker": _stop_broker,
    "change rules": _change_rules,
    "change cap": _change_cap,
    "delete limit": _delete_limit,
}
