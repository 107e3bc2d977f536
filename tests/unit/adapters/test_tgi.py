"""TGI's own routes: what is written to them, and what their events say."""

import json

import pytest

from enginehouse.adapters import SseEvent
from enginehouse.adapters._stops import StopTrimmer
from enginehouse.adapters.tgi import StreamReader, write_generate
from enginehouse.contract import EngineError, Reason
from enginehouse.v1 import common_pb2, inference_pb2
from tests.unit.adapters.build import generate_request


def parameters(request: inference_pb2.GenerateRequest) -> dict[str, object]:
    call = write_generate(request, "text", output_tokens_max=100)
    assert call.path == "/generate_stream"
    members = json.loads(call.body)
    assert members["inputs"] == "text"
    found: dict[str, object] = members["parameters"]
    return found


def reader(**sampling: object) -> StreamReader:
    request = inference_pb2.GenerateRequest(model="public", prompt="p", return_token_ids=True)
    request.sampling.MergeFrom(inference_pb2.Sampling(**sampling))  # type: ignore[arg-type]
    return StreamReader("g1", request)


def token(text: str, *, special: bool = False, **members: object) -> SseEvent:
    frame = {"index": 1, "token": {"id": 7, "text": text, "logprob": -0.5, "special": special}, **members}
    return SseEvent(json.dumps({"generated_text": None, "details": None, **frame}))


def end(reason: str, count: int) -> dict[str, object]:
    return {"details": {"finish_reason": reason, "generated_tokens": count, "seed": None, "input_length": 9}}


def test_the_least_request_asks_for_details_within_its_bound() -> None:
    assert parameters(generate_request()) == {"details": True, "return_full_text": False, "max_new_tokens": 100}


@pytest.mark.parametrize(
    ("temperature", "sent"), [(0.0, {"do_sample": False}), (0.5, {"do_sample": True, "temperature": 0.5})]
)
def test_a_temperature_of_zero_is_no_sampling(temperature: float, sent: dict[str, object]) -> None:
    request = generate_request()
    request.sampling.temperature = temperature
    request.sampling.top_p = 1.0  # which TGI refuses, and which means no bound
    assert parameters(request) == {"details": True, "return_full_text": False, "max_new_tokens": 100} | sent


def test_every_wish_that_it_knows_is_told_in_its_own_words() -> None:
    request = generate_request()
    request.sampling.MergeFrom(
        inference_pb2.Sampling(
            max_output_tokens=5, top_p=0.5, top_k=3, seed=1, stop=["a"], frequency_penalty=0.25, top_logprobs=2
        )
    )
    request.lora = "mine"
    request.response_format.json_schema.schema = '{"b":1,"a":2}'
    assert parameters(request) == {
        "details": True,
        "return_full_text": False,
        "max_new_tokens": 5,
        "top_p": 0.5,
        "top_k": 3,
        "seed": 1,
        "frequency_penalty": 0.25,
        "stop": ["a"],
        "top_n_tokens": 2,
        "grammar": {"type": "json", "value": {"b": 1, "a": 2}},
        "adapter_id": "mine",
    }


def test_the_last_token_carries_the_end_and_the_count() -> None:
    reading = reader(top_logprobs=1)
    reading.prompt_tokens = 9
    steps = list(reading.read_event(token("Hi", top_tokens=[{"id": 7, "text": "Hi", "logprob": -0.5}])))
    assert (steps[0].delta.text, list(steps[0].delta.token_ids)) == ("Hi", [7])
    assert steps[0].delta.logprobs[0].top[0].token == "Hi"
    assert reading.usage == common_pb2.Usage(input_tokens=9, output_tokens=1, method=common_pb2.USAGE_METHOD_ADAPTER)
    last = list(reading.read_event(token("</s>", special=True, generated_text="Hi", **end("eos_token", 2))))
    assert [step.delta.text for step in last if step.HasField("delta")] == [""]  # its id alone
    assert last[-1].choice_finished.reason == inference_pb2.FINISH_REASON_STOP
    assert reading.done
    assert reading.finish().finished.usage == common_pb2.Usage(
        input_tokens=9, output_tokens=2, method=common_pb2.USAGE_METHOD_ENGINE
    )


def test_a_stream_without_its_last_token_ended_early() -> None:
    reading = reader()
    list(reading.read_event(token("Hi")))
    with pytest.raises(EngineError, match="ended early"):
        reading.finish()


@pytest.mark.parametrize(
    "frame",
    [
        SseEvent("{"),
        SseEvent("[]"),
        SseEvent("{}"),
        token("x", details={"finish_reason": "abort", "generated_tokens": 1, "input_length": 1}),
        token("x", details={"finish_reason": "length"}),
        token("\ud83d"),
    ],
)
def test_what_tgi_does_not_say_is_an_error(frame: SseEvent) -> None:
    with pytest.raises(EngineError) as caught:
        list(reader().read_event(frame))
    assert caught.value.reason is Reason.ENGINE_FAILED


@pytest.mark.parametrize(
    ("pieces", "shown", "found"),
    [
        (["Hello EN", "D and more"], ["Hello ", ""], "END"),
        (["a", "b"], ["a", "b"], ""),
        (["E", "N", "x"], ["", "", "ENx"], ""),
        (["x STOP END"], ["x "], "STOP"),
        (["x END STOP", "y"], ["x ", ""], "END"),
    ],
)
def test_a_stop_sequence_is_cut_off_however_it_is_cut_up(pieces: list[str], shown: list[str], found: str) -> None:
    trimmer = StopTrimmer(["END", "STOP"])
    assert [trimmer.feed(piece) for piece in pieces] == shown
    assert (trimmer.found, trimmer.rest()) == (found, "")


def test_what_only_looked_like_a_stop_sequence_is_text_at_the_end() -> None:
    trimmer = StopTrimmer(["END"])
    assert (trimmer.feed("the EN"), trimmer.rest(), trimmer.rest()) == ("the ", "EN", "")
