"""Prometheus pages as loads."""

from datetime import UTC, datetime

import pytest

from enginehouse.contract import EngineError
from enginehouse.engines.echo import EchoEngine
from enginehouse.engines.llama_cpp import LlamaCppEngine
from enginehouse.engines.metrics import LoadMeter, LoadSample, MetricsMapping, parse_prometheus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VLLM = MetricsMapping(
    running="vllm:num_requests_running",
    waiting="vllm:num_requests_waiting",
    progress=("vllm:generation_tokens_total", "vllm:prompt_tokens_total"),
    prompt_tokens_total="vllm:prompt_tokens_total",
    generated_tokens_total="vllm:generation_tokens_total",
    kv_cache_usage="vllm:kv_cache_usage_perc",
)
VLLM_PAGE = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a {strange} name"} 2.0
vllm:num_requests_running{engine="1",model_name="a {strange} name"} 3.0
vllm:num_requests_waiting{engine="0"} 7.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:prompt_tokens_total{engine="0"} 100.0
vllm:generation_tokens_total{engine="0"} 40.0 1395066363000
vllm:nothing NaN
vllm:worse +Inf
rubbish
"""


def read(meter: LoadMeter, page: str, monotonic_s: float) -> LoadSample:
    return meter.read(page, monotonic_s=monotonic_s, now=NOW)


def test_samples_with_labels_are_summed_and_rubbish_is_passed_over() -> None:
    values = parse_prometheus(VLLM_PAGE)
    assert values == {
        "vllm:num_requests_running": 5.0,
        "vllm:num_requests_waiting": 7.0,
        "vllm:kv_cache_usage_perc": 0.25,
        "vllm:prompt_tokens_total": 100.0,
        "vllm:generation_tokens_total": 40.0,
    }


def test_page_becomes_a_load() -> None:
    sample = read(LoadMeter(VLLM), VLLM_PAGE, 10.0)
    load = sample.load
    assert (load.running_requests, load.waiting_requests, load.kv_cache_usage) == (5, 7, 0.25)
    assert load.observed_at.ToDatetime(UTC) == NOW
    assert (sample.requests, sample.is_busy, sample.progress) == (12, True, 140.0)
    assert (load.prefill_tokens_per_second, load.decode_tokens_per_second) == (0.0, 0.0)


def test_rates_are_over_time_between_pages_and_stay_while_nothing_is_done() -> None:
    meter = LoadMeter(VLLM)
    read(meter, VLLM_PAGE, 10.0)
    later = VLLM_PAGE.replace(" 100.0", " 300.0").replace(" 40.0", " 60.0")
    load = read(meter, later, 12.0).load
    assert (load.prefill_tokens_per_second, load.decode_tokens_per_second) == (100.0, 10.0)
    load = read(meter, later, 20.0).load
    assert (load.prefill_tokens_per_second, load.decode_tokens_per_second) == (100.0, 10.0)


def test_rates_are_over_the_engines_own_seconds_where_it_counts_them() -> None:
    mapping = LlamaCppEngine.traits.metrics
    assert mapping is not None
    page = (
        "llamacpp:requests_processing 1\nllamacpp:requests_deferred 4\nllamacpp:prompt_tokens_total 38\n"
        "llamacpp:prompt_seconds_total 0.19\nllamacpp:tokens_predicted_total 150\n"
        "llamacpp:tokens_predicted_seconds_total 1.5\nllamacpp:n_decode_total 145\n"
    )
    sample = read(LoadMeter(mapping), page, 1.0)
    assert sample.load.prefill_tokens_per_second == pytest.approx(200.0)
    assert sample.load.decode_tokens_per_second == pytest.approx(100.0)
    assert not sample.load.HasField("kv_cache_usage")
    assert sample.progress == 145


def test_restarted_counters_give_no_negative_rate() -> None:
    meter = LoadMeter(VLLM)
    read(meter, VLLM_PAGE, 10.0)
    load = read(meter, VLLM_PAGE.replace(" 100.0", " 1.0").replace(" 40.0", " 1.0"), 12.0).load
    assert load.prefill_tokens_per_second == 0.0


def test_page_of_another_kind_of_engine_is_refused() -> None:
    mapping = EchoEngine.traits.metrics
    assert mapping is not None
    with pytest.raises(EngineError, match="has no echo:requests_running"):
        read(LoadMeter(mapping), VLLM_PAGE, 1.0)
