"""Turns declared settings into the contract's resources, as the admin API knows them."""

from decimal import Decimal

from enginehouse.router import NANOUSD_PER_USD, Jurisdictions, hourly_price
from enginehouse.services.settings import model
from enginehouse.v1 import admin_pb2, common_pb2, ledger_pb2, router_pb2

ORGANIZATION = "organizations/default"


def nanousd(usd: Decimal) -> int:
    """USD as whole nano-USD, rounded up: a price is never less than what was written."""
    return int((usd * NANOUSD_PER_USD).to_integral_value(rounding="ROUND_CEILING"))


def tenant_name(tenant: str) -> str:
    """The resource name of a declared tenant."""
    return f"{ORGANIZATION}/tenants/{tenant}"


def tenants(settings: model.Settings) -> list[admin_pb2.Tenant]:
    """The declared tenants with their policies."""
    tree = settings.jurisdictions()
    return [admin_pb2.Tenant(name=tenant_name(one.name), policy=_policy(one, tree)) for one in settings.tenants]


def limits(settings: model.Settings) -> list[admin_pb2.Limit]:
    """The declared limits."""
    return [
        admin_pb2.Limit(
            name=f"limits/{one.name}",
            scope=_scope(one.scope),
            unit=ledger_pb2.LimitUnit.Value(f"LIMIT_UNIT_{one.unit.upper()}"),
            window=ledger_pb2.LimitWindow.Value(f"LIMIT_WINDOW_{one.window.upper()}"),
            cap=nanousd(one.cap) if one.unit == "usd" else int(one.cap),
            time_zone=one.time_zone,
        )
        for one in settings.limits
    ]


def deployments(settings: model.Settings) -> list[admin_pb2.Deployment]:
    """The declared deployments."""
    return [
        admin_pb2.Deployment(
            name=f"deployments/{one.name}",
            model=one.public_model,
            aliases=one.aliases,
            engine=one.engine.kind,
            settings=engine_settings(one.engine),
            placements=[_placement(placement) for placement in one.placements],
            tenants=[tenant_name(tenant) for tenant in one.tenants],
            lane=_lane(one.lane),
        )
        for one in settings.deployments
    ]


def engine_settings(engine: model.Engine) -> admin_pb2.EngineSettings:
    """How an engine is started, as the contract says it."""
    container = engine.container
    return admin_pb2.EngineSettings(
        model_source=engine.model,
        context_tokens_max=engine.context_tokens_max,
        output_tokens_max=engine.output_tokens_max,
        parallel=engine.parallel,
        threads=engine.threads,
        arguments=engine.arguments,
        environment=engine.environment,
        external_url=engine.url,
        program=engine.program,
        served_names=engine.served_names,
        tensor_parallel=engine.tensor_parallel,
        pipeline_parallel=engine.pipeline_parallel,
        memory_fraction=engine.memory_fraction or 0.0,
        quantization=engine.quantization,
        lora_adapters=[
            admin_pb2.LoraAdapter(name=name, source=source) for name, source in engine.lora_adapters.items()
        ],
        container=None
        if container is None
        else admin_pb2.Container(image=container.image, runtime=container.runtime, arguments=container.arguments),
        model_revision=engine.model_revision,
        model_sha256=engine.model_sha256,
    )


def chip_class(name: model.Chip | None) -> common_pb2.ChipClass.ValueType:
    """The chip class of a setting."""
    return common_pb2.ChipClass.Value(f"CHIP_CLASS_{name.upper()}") if name else common_pb2.CHIP_CLASS_UNSPECIFIED


def _policy(tenant: model.Tenant, tree: Jurisdictions) -> admin_pb2.Policy:
    weights = tenant.weights
    return admin_pb2.Policy(
        residency=router_pb2.Residency(
            allow=sorted({tree.jurisdiction(name) for name in tenant.residency.allow}),
            deny=sorted({tree.jurisdiction(name) for name in tenant.residency.deny}),
        ),
        chips_allowed=[chip_class(name) for name in tenant.chips.allow],
        chips_forbidden=[chip_class(name) for name in tenant.chips.deny],
        chips_preferred=[chip_class(name) for name in tenant.chips.prefer],
        quality_floor=_quality(tenant.quality_floor),
        price_nanousd_max=nanousd(tenant.price_max) if tenant.price_max is not None else 0,
        models=tenant.models,
        weights=admin_pb2.ScorerWeights(
            cost=weights.cost, quality=weights.quality, wait=weights.wait, affinity=weights.affinity, chip=weights.chip
        ),
        lane=_lane(tenant.lane),
    )


def _placement(placement: model.Placement) -> admin_pb2.Placement:
    return admin_pb2.Placement(
        node=placement.node,
        price=_price(placement.price),
        quality=_quality(placement.quality),
        replicas=placement.replicas,
        in_flight_max=placement.in_flight_max,
    )


def _price(price: model.TokenPrice | model.HourlyPrice) -> common_pb2.Price:
    if isinstance(price, model.HourlyPrice):
        return hourly_price(
            nanousd(price.usd_per_hour), price.input_tokens_per_second, price.output_tokens_per_second
        ).to_message()
    cached = price.input if price.cached_input is None else price.cached_input
    return common_pb2.Price(
        input_nanousd_per_million_tokens=nanousd(price.input),
        cached_input_nanousd_per_million_tokens=nanousd(cached),
        output_nanousd_per_million_tokens=nanousd(price.output),
        request_nanousd=nanousd(price.request),
    )


def _scope(scope: str) -> str:
    if scope == "organization":
        return ORGANIZATION
    kind, _, rest = scope.partition("/")
    if kind == "tenant":
        plural = {"tenant": "tenants", "project": "projects", "key": "keys"}
        segments = scope.split("/")
        named = [plural[word] if index % 2 == 0 else word for index, word in enumerate(segments)]
        return f"{ORGANIZATION}/{'/'.join(named)}"
    return f"{kind}s/{rest}"


def _quality(name: model.Quality | None) -> common_pb2.Quality.ValueType:
    return common_pb2.Quality.Value(f"QUALITY_{name.upper()}") if name else common_pb2.QUALITY_UNSPECIFIED


def _lane(name: model.Lane | None) -> common_pb2.Lane.ValueType:
    return common_pb2.Lane.Value(f"LANE_{name.upper()}") if name else common_pb2.LANE_UNSPECIFIED
