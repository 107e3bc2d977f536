"""The memory of which replica read which beginnings of prompts."""

from enginehouse.services.router.affinity import BLOCK_BYTES, BLOCKS_MAX, REPLICAS_MAX, ROTATE_MS, Affinity

PROMPT = bytes(range(256)) * (BLOCK_BYTES // 256) * 4


class Time:
    def __init__(self) -> None:
        self.now_ms = 0


def affinity(time: Time | None = None, known_max: int = 1000) -> Affinity:
    clock, keys = time or Time(), iter(range(256))
    return Affinity(now_ms=lambda: clock.now_ms, make_key=lambda: bytes([next(keys)]) * 32, known_max=known_max)


def test_a_replica_matches_as_far_as_the_prompts_are_the_same() -> None:
    memory = affinity()
    memory.remember("r1", memory.blocks("t", PROMPT))
    longer = PROMPT + b"x" * BLOCK_BYTES
    other = PROMPT[: 2 * BLOCK_BYTES] + b"y" * 2 * BLOCK_BYTES
    assert memory.matches(memory.blocks("t", longer)) == {"r1": 4}
    assert memory.matches(memory.blocks("t", other)) == {"r1": 2}
    assert memory.matches(memory.blocks("t", b"z" + PROMPT)) == {}


def test_a_block_counts_only_behind_the_blocks_before_it() -> None:
    memory = affinity()
    memory.remember("r1", memory.blocks("t", PROMPT)[1:])
    assert memory.matches(memory.blocks("t", PROMPT)) == {}


def test_each_replica_has_a_count_of_its_own() -> None:
    memory = affinity()
    blocks = memory.blocks("t", PROMPT)
    memory.remember("r1", blocks)
    memory.remember("r2", blocks[:1])
    assert memory.matches(blocks) == {"r1": 4, "r2": 1}


def test_owners_learn_nothing_of_each_other() -> None:
    memory = affinity()
    memory.remember("r1", memory.blocks("t", PROMPT))
    assert memory.matches(memory.blocks("u", PROMPT)) == {}


def test_a_part_of_a_block_is_no_block() -> None:
    memory = affinity()
    assert memory.blocks("t", b"x" * (BLOCK_BYTES - 1)) == ()
    assert len(memory.blocks("t", b"x" * (BLOCK_BYTES * 2 + 1))) == 2
    assert len(memory.blocks("t", b"x" * BLOCK_BYTES * (BLOCKS_MAX + 5))) == BLOCKS_MAX


def test_hashes_depend_on_the_key_and_hold_no_text() -> None:
    one, other = affinity(), Affinity(now_ms=lambda: 0)
    assert set(one.blocks("t", PROMPT)).isdisjoint(other.blocks("t", PROMPT))
    assert all(len(block) == 16 for block in one.blocks("t", PROMPT))


def test_a_new_key_forgets_what_the_old_one_hashed() -> None:
    time = Time()
    memory = affinity(time)
    before = memory.blocks("t", PROMPT)
    memory.remember("r1", before)
    time.now_ms = ROTATE_MS
    after = memory.blocks("t", PROMPT)
    assert set(before).isdisjoint(after)
    assert memory.known == 0
    assert memory.matches(after) == {}


def test_the_memory_is_bounded_and_keeps_beginnings_longest() -> None:
    memory = affinity(known_max=4)
    first, second = memory.blocks("t", PROMPT), memory.blocks("t", b"q" + PROMPT)
    memory.remember("r1", first)
    memory.remember("r2", second[:2])
    assert memory.known == 4
    assert memory.matches(first) == {"r1": 2}
    assert memory.matches(second) == {"r2": 2}


def test_of_many_replicas_the_latest_are_remembered() -> None:
    memory = affinity()
    block = memory.blocks("t", PROMPT)[:1]
    for number in range(REPLICAS_MAX + 3):
        memory.remember(f"r{number}", block)
    assert memory.matches(block) == {f"r{number}": 1 for number in range(3, REPLICAS_MAX + 3)}
