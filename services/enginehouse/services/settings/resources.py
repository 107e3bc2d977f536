"""Turns declared settings into the contract's resources, as the admin API knows them."""

from datetime import datetime

from google.protobuf import timestamp_pb2

from enginehouse.services.settings import model
from enginehouse.services.settings.policy_messages import (
    ORGANIZATION,
    chip_class,
    lane,
    nanousd,
    policy_message,
    policy_set_message,
    quality,
    tenant_name,
)
from enginehouse.v1 import admin_pb2, common_pb2, ledger_pb2

__all__ = ["ORGANIZATION", "chip_class", "deployments", "limits", "policy_set", "tenant_name", "tenants"]


def tenants(settings: model.Settings) -> list[admin_pb2.Tenant]:
    """The declared tenants with their policies."""
    return [admin_pb2.Tenant(name=tenant_name(one.name), policy=policy_message(one)) for one in settings.tenants]


def policy_set(settings: model.Settings) -> admin_pb2.PolicySet | None:
    """The declared rules. None when the file says nothing of rules and classes of data."""
    if not settings.policies and not settings.data_classes:
        return None
    return policy_set_message(settings.policies, settings.data_classes)


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
            start_time=_timestamp(one.starts),
            end_time=_timestamp(one.ends),
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
            lane=lane(one.lane),
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
        api=engine_api(engine.api),
        features=[common_pb2.Feature.Value(f"FEATURE_{name.upper()}") for name in engine.features],
    )


def engine_api(name: str) -> admin_pb2.EngineApi.ValueType:
    """What an engine is asked in; OpenAI's, which every engine has, is the contract's default."""
    return admin_pb2.EngineApi.Value("ENGINE_API_UNSPECIFIED" if name == "openai" else f"ENGINE_API_{name.upper()}")


def _placement(placement: model.Placement) -> admin_pb2.Placement:
    return admin_pb2.Placement(
        node=placement.node,
        price=_price(placement.price),
        quality=quality(placement.quality),
        quality_scores=placement.quality_scores,
        replicas=placement.replicas,
        in_flight_max=placement.in_flight_max,
    )


def _price(price: model.TokenPrice | model.HourlyPrice) -> common_pb2.Price:
    if isinstance(price, model.HourlyPrice):
        return common_pb2.Price(
            hour_nanousd=nanousd(price.hour),
            input_tokens_per_second=price.input_tokens_per_second or 0,
            output_tokens_per_second=price.output_tokens_per_second or 0,
        )
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


def _timestamp(moment: datetime | None) -> timestamp_pb2.Timestamp | None:
    if moment is None:
        return None
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(moment)
    return message
