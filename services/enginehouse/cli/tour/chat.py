"""Stop 1: the same model through three doors, and an embedding."""

from enginehouse.cli.tour.guide import EMBEDDER, MODEL, Tour
from enginehouse.services.server import channel
from enginehouse.v1 import inference_pb2, inference_pb2_grpc

_QUESTION = "Say hello in one short sentence."


async def chat(tour: Tour) -> None:
    """Chats with the OpenAI SDK, whole and streamed, then with gRPC; embeds a text."""
    tour.heading(1, "A real model answers, through Envoy")
    client = tour.client("anywhere")
    tour.tell("openai SDK, unary:")
    answer = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": _QUESTION}], max_tokens=24, temperature=0
    )
    usage = answer.usage
    tour.say(f"  {answer.choices[0].message.content}")
    if usage is not None:
        tour.say(f"  ({usage.prompt_tokens} tokens in, {usage.completion_tokens} out)", "cyan")
    tour.tell("openai SDK, streaming:")
    tour.console.print("  ", end="")
    stream = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Count to five."}], max_tokens=24, stream=True
    )
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            tour.console.print(chunk.choices[0].delta.content, end="", markup=False)
    tour.console.print()
    await _grpc(tour)
    tour.tell("an embedding:")
    embedding = await client.embeddings.create(model=EMBEDDER, input="the right engine for every request")
    vector = embedding.data[0].embedding
    tour.say(f"  {len(vector)} dimensions, the first are {', '.join(f'{value:.3f}' for value in vector[:4])}", "cyan")


async def _grpc(tour: Tour) -> None:
    tour.tell("gRPC, InferenceService.Generate on the same port:")
    message = inference_pb2.Message(role=inference_pb2.ROLE_USER, parts=[inference_pb2.Part(text=_QUESTION)])
    request = inference_pb2.GenerateRequest(
        model=MODEL,
        conversation=inference_pb2.Conversation(messages=[message]),
        sampling=inference_pb2.Sampling(max_output_tokens=16),
    )
    tour.console.print("  ", end="")
    async with channel(tour.mesh.door) as connection:
        steps = inference_pb2_grpc.InferenceServiceStub(connection).Generate(
            request, metadata=(("authorization", f"Bearer {tour.keys['anywhere']}"),)
        )
        async for step in steps:
            if step.delta.text:
                tour.console.print(step.delta.text, end="", markup=False)
            if step.HasField("finished"):
                used = step.finished.usage
                tour.say(f"\n  ({used.input_tokens} tokens in, {used.output_tokens} out)", "cyan")
