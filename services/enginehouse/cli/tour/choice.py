"""Stop 5: chips and quality, asked for in headers."""

import openai

from enginehouse.cli.tour.guide import MODEL, Tour, message_of


async def choice(tour: Tour) -> None:
    """Asks for a chip that is not there, then for low and for high quality."""
    tour.heading(5, "Chips, cost and quality")
    tour.tell("x-enginehouse-chip: tpu")
    try:
        await _ask(tour, {"x-enginehouse-chip": "tpu"})
    except openai.APIStatusError as error:
        tour.say(f"  refused: {error.status_code}", "yellow")
        tour.say(f"  {message_of(error)}")
    for quality in ("low", "high"):
        tour.tell(f"x-enginehouse-quality: {quality}")
        tour.say(f"  served by {await _ask(tour, {'x-enginehouse-quality': quality})}", "green")


async def _ask(tour: Tour, headers: dict[str, str]) -> str:
    answer = await tour.client("anywhere").chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=4, extra_headers=headers
    )
    decision_id = answer.headers.get("x-enginehouse-decision", "")
    decided = {decision.id: decision for decision in tour.watcher.picture.decisions}
    return decided[decision_id].attempts[0].replica if decision_id in decided else "a replica"
