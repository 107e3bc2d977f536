"""Resource names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.contract import Reason, RequestError
from enginehouse.services.control.names import (
    WILDCARD,
    DeploymentName,
    KeyName,
    LimitName,
    OrganizationName,
    ProjectName,
    TenantName,
    checked_id,
)

IDS = st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True).filter(lambda text: text != WILDCARD)


@given(organization=IDS, tenant=IDS, project=IDS, key=IDS)
def test_a_name_reads_as_it_is_written(organization: str, tenant: str, project: str, key: str) -> None:
    for name in (
        OrganizationName(organization),
        TenantName(organization, tenant),
        ProjectName(organization, tenant, project),
        KeyName(organization, tenant, project, key),
        LimitName(key),
        DeploymentName(key),
    ):
        assert type(name).parse(str(name)) == name


@given(text=st.text(max_size=70))
def test_what_is_no_id_is_refused(text: str) -> None:
    is_id = 1 <= len(text) <= 63 and set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") and text != WILDCARD
    if is_id:
        assert checked_id(text, "tenant") == text
        return
    with pytest.raises(RequestError) as caught:
        checked_id(text, "tenant")
    assert caught.value.reason is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize(
    "text", ["", "limits", "limits/", "limits/a/b", "limit/a", "/limits/a", "limits/a\n", "limits/A", "limits/-"]
)
def test_another_form_is_refused_with_the_form_or_the_id(text: str) -> None:
    with pytest.raises(RequestError, match=r"limits/\{limit\}|is not an id"):
        LimitName.parse(text)


def test_a_wildcard_is_read_in_patterns_alone() -> None:
    assert OrganizationName.parse_pattern("organizations/-").organization == WILDCARD
    assert ProjectName.parse_pattern("organizations/o/tenants/-/projects/p") == ProjectName("o", WILDCARD, "p")
    with pytest.raises(RequestError, match="is not an id"):
        OrganizationName.parse_pattern("organizations/--A")
    with pytest.raises(RequestError, match="is not an id"):
        OrganizationName.parse("organizations/-")


def test_a_form_is_told_from_another() -> None:
    assert TenantName.matches("organizations/o/tenants/t")
    assert not TenantName.matches("organizations/o/tenants/t/projects/p")
    assert not TenantName.matches("organizations/o/projects/t")
