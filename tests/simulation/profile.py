"""Which faults a seed is about, and how often they come."""

import random
from dataclasses import dataclass, field

from tests.simulation.network import CLEAR, Weather

ROUTER_FAULTS = ("kill router", "stop router", "oversleep", "replace router")
CONTROL_FAULTS = ("kill control", "starve")
LINK_FAULTS = ("cut link", "change weather")
ENVOY_FAULTS = ("kill envoy", "lose disk", "kill host", "kill host")
OTHER_FAULTS = ("kill node", "stop broker", "change rules")
OPERATOR = ("change cap", "delete limit")


@dataclass(slots=True)
class Profile:
    """How a seed's world is and what happens to it.

    Attributes:
        faults: what may happen beside requests.
        fault_rate: chance that a step is a fault.
        pause_rate: chance that time passes before a step, so that terms end and windows turn.
        resolve_interval_s, report_s: how often control ends doubts, and how often it hears how complete logs are.
        is_exact: no log and no message is ever lost, so that nothing may be written off.
    """

    routers: int
    envoys: int
    weather: Weather
    faults: tuple[str, ...]
    fault_rate: float
    pause_rate: float
    is_exact: bool
    resolve_interval_s: float
    report_s: float
    asked: int = field(default=0)


def draw_profile(rng: random.Random) -> Profile:
    """A profile: some seeds are calm but for one kind of fault, others have all of them at once."""
    is_exact = rng.random() < 0.35
    faults: list[str] = [*rng.choice(((), ROUTER_FAULTS, ROUTER_FAULTS)), *rng.choice(((), CONTROL_FAULTS))]
    faults += rng.choice(((), OTHER_FAULTS))
    faults += rng.choice(((), OPERATOR))
    weather = CLEAR
    if not is_exact:
        faults += rng.choice(((), LINK_FAULTS))
        faults += rng.choice(((), ENVOY_FAULTS))
        weather = draw_weather(rng)
    resolve_interval_s, report_s = (3.0, 2.0) if rng.random() < 0.2 else (10.0, 6.0)
    return Profile(
        routers=rng.choice((1, 2, 2, 3, 4)),
        envoys=rng.choice((1, 1, 2)),
        weather=weather,
        faults=tuple(faults),
        fault_rate=rng.choice((0.1, 0.2, 0.3)) if faults else 0.0,
        pause_rate=rng.choice((0.02, 0.08, 0.15)),
        is_exact=is_exact,
        resolve_interval_s=resolve_interval_s,
        report_s=report_s,
    )


def draw_weather(rng: random.Random) -> Weather:
    """Clear, slow, or as bad as it gets."""
    return rng.choice(
        (
            CLEAR,
            Weather(delay_s_mean=0.1, slow=0.02),
            Weather(loss=0.05, duplication=0.1, delay_s_mean=0.02, slow=0.01),
            Weather(loss=0.2, duplication=0.3, delay_s_mean=0.05, slow=0.02),
        )
    )
