"""Which accelerators are whose, within one process and between several."""

import subprocess
import sys
from pathlib import Path

import pytest

from enginehouse.contract import EngineError, RequestError
from enginehouse.engines import Accelerator, AcceleratorPool
from enginehouse.engines.inventory.pool import FileClaim
from enginehouse.v1 import common_pb2

# Another supervisor, which claims, says so, and waits to be killed.
OTHER = """
import sys
from pathlib import Path
from tests.unit.engines.test_accelerator_pool import pool_of
claim = pool_of(Path(sys.argv[1]), 1).claim("other", 1, 0.7)
print(claim.accelerators[0].id, flush=True)
sys.stdin.read()
"""


def accelerator(index: int, model: str = "h200") -> Accelerator:
    return Accelerator(f"GPU-{index}", index, common_pb2.CHIP_CLASS_GPU, "nvidia", model, 1)


def pool_of(folder: Path, count: int) -> AcceleratorPool:
    return AcceleratorPool([accelerator(index) for index in range(count)], folder)


def claimed(pool: AcceleratorPool, owner: str, count: int, share: float) -> FileClaim:
    claim = pool.claim(owner, count, share)
    assert claim is not None
    return claim


def indexes(claim: FileClaim) -> list[int]:
    return [one.index for one in claim.accelerators]


def test_two_replicas_are_never_on_one_gpu_unless_their_shares_fit(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, 2)
    claims = [claimed(pool, f"r{number}", 1, 0.9) for number in range(2)]
    assert sorted(index for claim in claims for index in indexes(claim)) == [0, 1]
    with pytest.raises(EngineError, match=r"r2 wants 0.2 of 1 accelerators; taken are 0.9 of GPU-0 by r0"):
        pool.claim("r2", 1, 0.2)
    small = claimed(pool, "r3", 1, 0.1)
    assert indexes(small) == [0]
    for claim in (*claims, small):
        claim.release()


def test_shares_that_add_up_to_the_whole_fit(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, 1)
    claims = [claimed(pool, f"r{number}", 1, share) for number, share in enumerate((0.3, 0.3, 0.4))]
    assert [indexes(claim) for claim in claims] == [[0], [0], [0]]
    for claim in claims:
        claim.release()


def test_small_replicas_share_a_gpu_and_leave_the_others_whole(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, 2)
    claims = [claimed(pool, "a", 1, 0.4), claimed(pool, "b", 1, 0.4), claimed(pool, "c", 1, 1.0)]
    assert [indexes(claim) for claim in claims] == [[0], [0], [1]]
    for claim in claims:
        claim.release()


def test_released_accelerator_is_given_again(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, 1)
    first = claimed(pool, "a", 1, 1.0)
    first.release()
    first.release()
    claimed(pool, "b", 1, 1.0).release()
    assert list(tmp_path.glob("*.claim")) == []


def test_more_than_the_host_has_can_never_work(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="wants 4 accelerators of one kind; this host has 2 nvidia h200"):
        pool_of(tmp_path, 2).claim("r", 4, 1.0)


def test_accelerators_of_one_replica_are_of_one_model(tmp_path: Path) -> None:
    pool = AcceleratorPool([accelerator(0, "a100"), accelerator(1), accelerator(2)], tmp_path)
    claim = claimed(pool, "r", 2, 1.0)
    assert indexes(claim) == [1, 2]
    claim.release()


def test_host_without_accelerators_gives_none(tmp_path: Path) -> None:
    assert AcceleratorPool((), tmp_path).claim("r", 8, 1.0) is None


def test_claim_of_another_process_holds_until_that_process_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "GPU-0\n"
            with pytest.raises(EngineError, match=r"taken are 0.7 of GPU-0 by other"):
                pool_of(tmp_path, 1).claim("mine", 1, 0.5)
        finally:
            other.kill()
    claimed(pool_of(tmp_path, 1), "mine", 1, 1.0).release()


def test_room_is_what_a_claim_would_find_and_what_can_never_be_is_not_waited_for(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, 2)
    claim = claimed(pool, "r", 1, 0.7)
    assert pool.has_room(1, 1.0)
    assert pool.has_room(2, 0.3)
    assert not pool.has_room(2, 0.4)
    assert pool.has_room(3, 1.0)  # a claim says why not
    assert AcceleratorPool((), tmp_path).has_room(1, 1.0)
    claim.release()
    assert pool.has_room(2, 1.0)
