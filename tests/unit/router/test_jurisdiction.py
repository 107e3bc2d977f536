"""Places, jurisdictions and residency rules by example."""

import pytest

from enginehouse.contract import RequestError
from enginehouse.router import Jurisdictions, Residency, residency

TREE = Jurisdictions()


def test_a_place_is_within_its_country_its_groups_and_every_prefix_of_its_path() -> None:
    assert TREE.place("eu/de/he").within == {"de", "de/he", "eu", "eea"}
    assert TREE.place("us/va").within == {"us", "us/va"}
    assert TREE.place("no").within == {"no", "eea", "efta"}


@pytest.mark.parametrize("label", ["", "eu", "xx", "eu/us", "us//va", "de/ü!", "EUROPE"])
def test_a_label_that_is_no_place_is_refused_and_so_is_nowhere(label: str) -> None:
    with pytest.raises(RequestError):
        TREE.place(label)
    assert TREE.place_or_nowhere(label) is None


def test_two_spellings_of_a_jurisdiction_are_one() -> None:
    assert residency(TREE, ["EU/DE"], []) == residency(TREE, ["de"], [])


def test_an_unlabelled_place_never_qualifies_even_without_a_rule() -> None:
    assert not Residency().permits(None)
    assert Residency().permits(TREE.place("us"))


def test_deny_wins_over_allow() -> None:
    rule = residency(TREE, ["eu"], ["de"])
    assert rule.permits(TREE.place("fr"))
    assert not rule.permits(TREE.place("eu/de"))


def test_a_place_too_vague_to_be_outside_a_denied_one_is_kept_out() -> None:
    rule = residency(TREE, [], ["us/va"])
    assert not rule.permits(TREE.place("us"))
    assert rule.permits(TREE.place("us/ca"))


def test_a_users_own_group_is_a_jurisdiction() -> None:
    tree = Jurisdictions({"nordics": frozenset({"se", "no", "dk", "fi", "is"})})
    assert residency(tree, ["nordics"], []).permits(tree.place("nordics/se"))
    assert not residency(tree, ["nordics"], []).permits(tree.place("de"))
