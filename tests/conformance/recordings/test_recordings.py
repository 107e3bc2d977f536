"""The emulators of vLLM and MLX answer as the real engines did, field by field."""

from fnmatch import fnmatchcase

import pytest

from enginehouse.engines.emulators import EmulatorOptions, make_emulation, running
from tests.conformance.recordings.answers import Answer
from tests.conformance.recordings.compare import Difference, differences
from tests.conformance.recordings.meant import MEANT
from tests.conformance.recordings.questions import QUESTIONS
from tests.conformance.recordings.record import Recording, asked

OPTIONS = {
    "vllm": EmulatorOptions(models=("smollm2",), context_tokens_max=2048, forces_usage=True, sleep_mode=True),
    "mlx": EmulatorOptions(models=("/models/smollm2",)),
}


async def found(kind: str) -> list[Difference]:
    """All that is different."""
    recording = Recording.read(kind)
    async with running(make_emulation(kind, OPTIONS[kind])) as address:
        answers = await asked(address, QUESTIONS[kind](recording.model))
    assert list(answers) == list(recording.answers), f"record {kind} anew: the questions have changed"
    return [
        difference
        for name, answer in answers.items()
        for difference in differences(name, recording.answers[name], answer)
    ]


@pytest.mark.parametrize("kind", sorted(QUESTIONS))
async def test_emulator_differs_from_the_engine_only_where_it_is_meant_to(kind: str) -> None:
    patterns = [pattern for meant in MEANT[kind] for pattern in meant.paths]
    unmeant, seen = [], set()
    for difference in await found(kind):
        hit = [pattern for pattern in patterns if fnmatchcase(difference.path, pattern)]
        seen.update(hit)
        if not hit:
            unmeant.append(str(difference))
    assert unmeant == []
    assert sorted(set(patterns) - seen) == [], "these differences are no more; take them off the list"


def answer(**body: object) -> Answer:
    """A whole answer."""
    return Answer(200, {"content-type": "application/json", "date": ""}, body)


@pytest.mark.parametrize(
    ("emulated", "path"),
    [
        (answer(object="list", n=1), "q/body/data"),
        (answer(object="list", data=[{"id": "a"}, {"id": "b"}], n=1), "q/body/data"),
        (answer(object="page", data=[{"id": "a"}], n=1), "q/body/object"),
        (answer(object="list", data=[{"id": None}], n=1), "q/body/data/0/id"),
        (answer(object="list", data=[{"id": "a"}], n=1.5), "q/body/n"),
        (Answer(404, {"content-type": "application/json", "date": ""}, {}), "q/status"),
        (Answer(200, {"content-type": "application/json"}, {}), "q/headers/date"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_comparison_sees_what_is_missing_or_of_another_type_or_word(emulated: Answer, path: str) -> None:
    recorded = answer(object="list", data=[{"id": "a"}], n=1)
    assert path in [difference.path for difference in differences("q", recorded, emulated)]


def test_comparison_lets_texts_and_numbers_be() -> None:
    recorded = answer(content="one", logprobs=[{"token": "a", "bytes": [1, 2]}], total=3)
    emulated = answer(content="two", logprobs=[{"token": "b", "bytes": [3]}, {"token": "c", "bytes": [4]}], total=9)
    assert list(differences("q", recorded, emulated)) == []
