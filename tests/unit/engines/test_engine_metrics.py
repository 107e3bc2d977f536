"""Pages of metrics as each engine writes them, and the load that is read from them."""

import json
from datetime import UTC, datetime

import pytest

from enginehouse.contract import EngineError
from enginehouse.engines import EngineRegistry
from enginehouse.engines.metrics import LoadMeter, LoadSample

NOW = datetime(2026, 1, 1, tzinfo=UTC)

VLLM = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:prompt_tokens_total{engine="0",model_name="m"} 1000.0
vllm:generation_tokens_total{engine="0",model_name="m"} 400.0
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="m"} 4.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 70.0
"""
TGI = """tgi_batch_current_size 3
tgi_queue_size 2
tgi_batch_inference_count{method="decode"} 60
tgi_batch_inference_count{method="prefill"} 10
tgi_request_input_length_sum 1000
tgi_request_generated_tokens_sum 400
"""
SGLANG = """sglang:num_running_reqs{model_name="m"} 3.0
sglang:num_queue_reqs{model_name="m"} 2.0
sglang:token_usage{model_name="m"} 0.25
sglang:num_used_tokens{model_name="m"} 70.0
sglang:prompt_tokens_total{model_name="m"} 1000.0
sglang:generation_tokens_total{model_name="m"} 400.0
"""
ITERATION = {
    "iter": 7,
    "numActiveRequests": 3,
    "numQueuedRequests": 2,
    "kvCacheStats": {"maxNumBlocks": 100, "freeNumBlocks": 75, "usedNumBlocks": 25},
    "inflightBatchingStats": {"numCtxTokens": 500, "numGenRequests": 2},
}


def meter_of(engine: str) -> LoadMeter:
    mapping = EngineRegistry(list).descriptor(engine).traits.metrics
    assert mapping is not None
    return LoadMeter(mapping)


def read(meter: LoadMeter, page: str, at_s: float = 0.0) -> LoadSample:
    return meter.read(page, monotonic_s=at_s, now=NOW)


@pytest.mark.parametrize(("engine", "page"), [("vllm", VLLM), ("sglang", SGLANG), ("tgi", TGI)])
def test_page_is_read_as_a_load(engine: str, page: str) -> None:
    load = read(meter_of(engine), page).load
    assert (load.running_requests, load.waiting_requests) == (3, 2)
    assert load.HasField("kv_cache_usage") is (engine != "tgi")
    assert load.kv_cache_usage == (0.0 if engine == "tgi" else 0.25)


@pytest.mark.parametrize(
    ("engine", "page", "moved"),
    [
        ("vllm", VLLM, VLLM.replace('model_name="m"} 70.0', 'model_name="m"} 71.0')),
        ("tgi", TGI, TGI.replace('"decode"} 60', '"decode"} 61')),
        ("sglang", SGLANG, SGLANG.replace('_tokens{model_name="m"} 70.0', '_tokens{model_name="m"} 71.0')),
    ],
)
def test_step_of_an_engine_is_progress_before_a_request_ends(engine: str, page: str, moved: str) -> None:
    assert moved != page
    meter = meter_of(engine)
    before = read(meter, page)
    assert read(meter, page, 1.0).progress == before.progress
    assert read(meter, moved, 2.0).progress != before.progress


def test_rates_are_over_wall_clock_time_where_the_engine_counts_no_seconds() -> None:
    meter = meter_of("vllm")
    read(meter, VLLM)
    load = read(meter, VLLM.replace("1000.0", "3000.0").replace("400.0", "440.0"), 4.0).load
    assert (load.prefill_tokens_per_second, load.decode_tokens_per_second) == (500.0, 10.0)


def test_gauge_that_was_never_set_is_nothing_where_the_engine_leaves_it_out() -> None:
    assert read(meter_of("tgi"), "tgi_queue_size 1\n").load.running_requests == 0
    with pytest.raises(EngineError, match="is it an engine of another kind"):
        read(meter_of("vllm"), TGI)


def test_iterations_are_added_up_over_pages_that_forget() -> None:
    meter = meter_of("tensorrt-llm")
    first = read(meter, json.dumps([ITERATION, ITERATION]))
    load = first.load
    assert (load.running_requests, load.waiting_requests, load.kv_cache_usage) == (3, 2, 0.25)
    second = read(meter, json.dumps([ITERATION]), 2.0)
    assert second.progress > first.progress
    assert (second.load.prefill_tokens_per_second, second.load.decode_tokens_per_second) == (250.0, 1.0)


def test_engine_without_new_iterations_is_busy_only_for_a_while() -> None:
    meter = meter_of("tensorrt-llm")
    last = read(meter, json.dumps([ITERATION]))
    between = read(meter, "[]", 1.0)
    assert (between.requests, between.progress) == (5, last.progress)
    assert read(meter, "[]", 10.0).requests == 0


@pytest.mark.parametrize("page", ["", "no json", '{"a": 1}'])
def test_page_that_is_no_list_of_iterations_is_another_engines(page: str) -> None:
    with pytest.raises(EngineError, match="is it an engine of another kind"):
        read(meter_of("tensorrt-llm"), page)
