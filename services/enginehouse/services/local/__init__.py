"""The mesh on one machine, as `enginehouse up` and the tests run it."""

from enginehouse.services.local.member import Member, MemberSpec, MemberState, describe_exit
from enginehouse.services.local.mesh import Mesh
from enginehouse.services.local.state import StateFolder

__all__ = ["Member", "MemberSpec", "MemberState", "Mesh", "StateFolder", "describe_exit"]
