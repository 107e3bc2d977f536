"""Cloud regions, subdivisions, and groups of one's own."""

import pytest

from enginehouse.contract import RequestError
from enginehouse.router import Jurisdictions, residency
from enginehouse.router.jurisdiction import COUNTRIES, GROUPS
from enginehouse.router.regions import REGIONS
from enginehouse.router.subdivisions import OWN_COUNTRY, SUBDIVISIONS

TREE = Jurisdictions()


def tree(**groups: set[str]) -> Jurisdictions:
    return Jurisdictions({**GROUPS, **{name: frozenset(members) for name, members in groups.items()}})


def test_every_region_is_a_place_in_a_country_that_exists() -> None:
    assert len(REGIONS) > 130
    assert {name.partition(":")[0] for name in REGIONS} == {"aws", "gcp", "azure"}
    for name, path in REGIONS.items():
        place = TREE.place(name)
        assert (place.label, place.path) == (name, path)
        assert {name, path, path.split("/")[0]} <= place.within


@pytest.mark.parametrize(
    ("region", "path"),
    [
        ("aws:eu-central-1", "de"),
        ("aws:eu-central-2", "ch"),
        ("aws:eu-west-2", "gb"),
        ("aws:us-east-1", "us/va"),
        ("aws:us-gov-west-1", "us"),
        ("gcp:europe-west3", "de"),
        ("gcp:europe-west1", "be"),
        ("gcp:northamerica-northeast1", "ca/qc"),
        ("azure:germanywestcentral", "de"),
        ("azure:northeurope", "ie"),
        ("azure:westeurope", "nl"),
        ("azure:eastus2", "us/va"),
    ],
)
def test_a_region_is_where_its_provider_says(region: str, path: str) -> None:
    assert REGIONS[region] == path


def test_a_region_is_written_one_way_whatever_its_case() -> None:
    assert TREE.place(" AWS:EU-Central-1 ").within == {"aws:eu-central-1", "de", "eu", "eea"}


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("aws:eu-centrall-1", "near it: aws:eu-central-1"),
        ("gcp:europe-west33", "gcp:europe-west3"),
        ("azure:germanywest", "azure:germanywestcentral"),
        ("aws:", "not a known region of aws"),
        ("hetzner:fsn1", "those known are aws, gcp, azure"),
        ("eu/aws:eu-central-1", "'eu/aws' is not a cloud"),
        ("aws:eu-central-1/a", "not a known region"),
    ],
)
def test_a_region_that_is_not_listed_is_nowhere_and_close_ones_are_named(label: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        TREE.jurisdiction(label)
    assert TREE.place_or_nowhere(label) is None


def test_an_allowed_region_allows_no_other_place_of_its_country() -> None:
    rule = residency(TREE, ["aws:eu-central-1"], [])
    assert rule.permits(TREE.place("aws:eu-central-1"))
    for other in ("de", "de/he", "gcp:europe-west3", "aws:eu-west-1"):
        assert not rule.permits(TREE.place(other))


def test_a_denied_region_keeps_out_what_may_be_in_it() -> None:
    rule = residency(TREE, [], ["aws:us-east-1"])
    for perhaps in ("aws:us-east-1", "us", "us/va"):
        assert not rule.permits(TREE.place(perhaps))
    for surely_not in ("us/ca", "azure:eastus", "aws:us-east-2", "de"):
        assert rule.permits(TREE.place(surely_not))


def test_a_region_that_is_known_by_its_country_alone_cannot_prove_that_it_is_outside_a_part_of_it() -> None:
    assert not residency(TREE, [], ["de/he"]).permits(TREE.place("aws:eu-central-1"))
    assert not residency(TREE, ["de/he"], []).permits(TREE.place("aws:eu-central-1"))


def test_subdivisions_are_those_of_iso_3166_2() -> None:
    assert set(SUBDIVISIONS) <= COUNTRIES
    assert len(SUBDIVISIONS["us"]) == 51
    assert len(SUBDIVISIONS["de"]) == 16
    for country, codes in SUBDIVISIONS.items():
        assert all(TREE.jurisdiction(f"{country}/{code}") for code in codes)
    assert TREE.jurisdiction("us/va/ashburn") == "us/va/ashburn"


@pytest.mark.parametrize(
    ("name", "message"),
    [("us/xx", "'xx' is not a subdivision of 'us'"), ("hk/1", "no subdivision of 'hk'"), ("eu/de/zz", "it has bb, be")],
)
def test_an_unknown_subdivision_is_refused(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        TREE.jurisdiction(name)


def test_an_area_with_a_country_code_of_its_own_has_that_spelling_alone() -> None:
    assert set(OWN_COUNTRY.values()) <= COUNTRIES
    for path, country in OWN_COUNTRY.items():
        with pytest.raises(RequestError, match=f"write '{country}'"):
            TREE.jurisdiction(path)


def test_a_group_holds_countries_parts_regions_and_other_groups() -> None:
    own = tree(home={"dach", "us/va", "aws:eu-west-1"}, dach={"eu/de", "AT", "ch"})
    rule = residency(own, ["home"], [])
    for inside in ("de/he", "at", "us/va", "aws:eu-west-1", "home/us/va", "dach/ch", "gcp:us-east4"):
        assert rule.permits(own.place(inside)), inside
    for outside in ("us", "us/ca", "ie", "fr"):
        assert not rule.permits(own.place(outside)), outside


def test_a_denied_group_keeps_out_what_is_too_vague_to_be_outside() -> None:
    own = tree(coast={"us/va", "us/ca", "aws:eu-west-1"})
    rule = residency(own, [], ["coast"])
    for perhaps in ("us/va", "us", "ie", "aws:eu-west-1", "gcp:us-west2"):
        assert not rule.permits(own.place(perhaps)), perhaps
    for surely_not in ("us/tx", "azure:northeurope", "de"):
        assert rule.permits(own.place(surely_not)), surely_not


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"one": {"one"}}, "'one' contains itself: one > one"),
        ({"one": {"two"}, "two": {"three", "de"}, "three": {"one"}}, "one > two > three > one"),
        ({"one": {"two/de"}, "two": {"one", "de"}}, "contains itself"),
        ({"one": {"atlantis"}}, "group 'one': .*'atlantis' is neither"),
        ({"one": {"aws:nowhere-1"}}, "group 'one': .*not a known region"),
        ({"one": {"eu/us"}}, "'us' is not in 'eu'"),
        ({"de": {"fr"}}, "'de' has the name of a country"),
        ({"One!": {"fr"}}, "write a name"),
    ],
)
def test_a_group_that_makes_no_sense_is_refused(groups: dict[str, set[str]], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        tree(**groups)
