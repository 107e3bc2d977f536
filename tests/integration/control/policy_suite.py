"""The organization's rules: replaced, refused, declared, told and published."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace

import pytest

from enginehouse.contract import Reason, RequestError
from enginehouse.router import Jurisdictions
from enginehouse.services.control import DeclaredResources
from enginehouse.services.policies import InvalidPolicyError
from enginehouse.v1 import admin_pb2, events_pb2, router_pb2
from tests.integration.control.declared_suite import DECLARED
from tests.integration.control.support import SETTINGS, TENANT, Harness, error_of, running

NAME = "policies/default"


def rules(*names: str, deny: str = "us/va", models: tuple[str, ...] = ()) -> admin_pb2.PolicySet:
    policy = admin_pb2.Policy(residency=router_pb2.Residency(allow=["eu"], deny=[deny]))
    return admin_pb2.PolicySet(
        name=NAME,
        rules=[admin_pb2.PolicyRule(name=name, principals=[TENANT], models=models, policy=policy) for name in names],
        data_classes={"personal": router_pb2.Residency(allow=["eu"])},
    )


async def read(mesh: Harness) -> admin_pb2.PolicySet:
    return await mesh.admin.GetPolicySet(admin_pb2.GetPolicySetRequest(name=NAME))


def update(mesh: Harness, wanted: admin_pb2.PolicySet) -> "Awaitable[admin_pb2.PolicySet]":
    return mesh.admin.UpdatePolicySet(admin_pb2.UpdatePolicySetRequest(policy_set=wanted))


def check(mesh: Harness, wanted: admin_pb2.PolicySet) -> "Awaitable[admin_pb2.PolicySet]":
    return mesh.admin.UpdatePolicySet(admin_pb2.UpdatePolicySetRequest(policy_set=wanted, validate_only=True))


def told(mesh: Harness, what: str) -> list[events_pb2.PolicyChanged]:
    heard = [event.payload for event in mesh.events.told if event.kind == "policy" and event.what == what]
    return [payload for payload in heard if isinstance(payload, events_pb2.PolicyChanged)]


class PolicySuite:
    """Inherited by each backend, which provides `database_url`."""

    async def test_there_is_a_set_without_rules_before_anybody_wrote_one(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            first = await read(mesh)
            assert (first.name, first.revision, len(first.rules)) == (NAME, 0, 0)
            await mesh.control.publisher.wait_until_current()
            assert admin_pb2.PolicySet.FromString(mesh.store.kept["policies.default"]) == first

    async def test_a_set_is_replaced_read_published_and_told(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.tenant()
            before = await read(mesh)
            after = await update(mesh, rules("home"))
            assert (after.revision, [rule.name for rule in after.rules]) == (1, ["home"])
            assert after.etag != before.etag
            assert after.update_time.ToMilliseconds() == mesh.clock.wall
            assert await read(mesh) == after
            await mesh.control.publisher.wait_until_current()
            assert admin_pb2.PolicySet.FromString(mesh.store.kept["policies.default"]) == after
            (event,) = told(mesh, "applied")
            assert (event.name, event.actor, event.revision) == (NAME, "operator", 1)
            assert (event.hash_before, event.hash) == (before.etag, after.etag)

    async def test_the_same_rules_again_are_no_new_revision(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.tenant()
            first = await update(mesh, rules("home"))
            mesh.clock.advance(60)
            assert await update(mesh, rules("home")) == first
            assert len(told(mesh, "applied")) == 1

    async def test_rules_outlive_control(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.tenant()
            written = await update(mesh, rules("home"))
        async with running(database_url) as mesh:
            assert await read(mesh) == written

    async def test_rules_are_stored_in_the_spelling_that_routers_compare(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.tenant()
            written = await update(mesh, rules("home", deny="EU/DE"))
            assert list(written.rules[0].policy.residency.deny) == ["de"]

    async def test_a_refused_set_leaves_the_one_before_in_force_and_everybody_hears(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.tenant()
            first = await update(mesh, rules("home"))
            error = await error_of(update(mesh, rules("home", "home", deny="atlantis", models=("gpt",))))
            assert error.reason is Reason.MALFORMED_REQUEST
            for part in (
                "rules[0].policy.residency.deny[0]: ",
                "'atlantis'",
                "rules[1].name: ",
                "rules[0].models[0]: no deployment offers 'gpt'; there is none",
            ):
                assert part in error.message
            assert await read(mesh) == first
            (event,) = told(mesh, "refused")
            assert (event.name, event.actor, event.revision) == (NAME, "operator", 1)
            assert (event.hash, event.hash_before) == (first.etag, first.etag)
            assert list(event.problems) == error.message.split("\n")

    async def test_a_tenants_own_wrong_policy_is_refused_and_told_likewise(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.tenant()
            wrong = admin_pb2.Tenant(name=TENANT, policy=admin_pb2.Policy(quality_score_floor=2))
            error = await error_of(mesh.admin.UpdateTenant(admin_pb2.UpdateTenantRequest(tenant=wrong)))
            assert error.message == "policy.quality_score_floor: 2.0 is no score; write a number from 0 to 1"
            (event,) = told(mesh, "refused")
            assert (event.name, list(event.problems)) == (TENANT, [error.message])

    async def test_a_check_says_what_would_be_and_changes_nothing(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.tenant()
            before = await read(mesh)
            would = await check(mesh, rules("home"))
            assert (would.revision, len(would.rules)) == (1, 1)
            assert await read(mesh) == before
            await error_of(check(mesh, rules("home", deny="atlantis")))
            assert told(mesh, "applied") == told(mesh, "refused") == []
            assert (await update(mesh, rules("home"))).etag == would.etag

    async def test_of_updates_that_read_the_same_etag_one_wins(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.tenant()
            etag = (await read(mesh)).etag

            def write(number: int) -> Awaitable[object]:
                wanted = rules(f"rule {number}")
                wanted.etag = etag
                return update(mesh, wanted)

            results = await asyncio.gather(*(write(number) for number in range(5)), return_exceptions=True)
            assert sum(isinstance(result, admin_pb2.PolicySet) for result in results) == 1
            assert (await error_of(write(9))).reason is Reason.ETAG_MISMATCH
            assert (await read(mesh)).revision == 1

    async def test_there_is_one_set_and_a_caller_without_a_key_gets_none(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            other = mesh.admin.GetPolicySet(admin_pb2.GetPolicySetRequest(name="policies/other"))
            assert (await error_of(other)).reason is Reason.RESOURCE_NOT_FOUND
            nameless = mesh.admin.UpdatePolicySet(admin_pb2.UpdatePolicySetRequest())
            assert (await error_of(nameless)).reason is Reason.MALFORMED_REQUEST
            keyless = mesh.admin_over_tcp
            for call in (
                keyless.GetPolicySet(admin_pb2.GetPolicySetRequest(name=NAME)),
                keyless.UpdatePolicySet(admin_pb2.UpdatePolicySetRequest(policy_set=rules())),
                keyless.UpdatePolicySet(admin_pb2.UpdatePolicySetRequest(policy_set=rules(), validate_only=True)),
                keyless.ReportRefusedPolicySet(admin_pb2.ReportRefusedPolicySetRequest(name=NAME, problems=["x"])),
            ):
                assert (await error_of(call)).reason in (Reason.MISSING_KEY, Reason.INVALID_KEY)

    async def test_a_file_that_could_not_be_read_is_told_to_everybody(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            report = admin_pb2.ReportRefusedPolicySetRequest(name=NAME, problems=["policies.yaml:3: no such key"])
            await mesh.admin.ReportRefusedPolicySet(report)
            (event,) = told(mesh, "refused")
            assert (event.actor, list(event.problems)) == ("operator", ["policies.yaml:3: no such key"])
            empty = mesh.admin.ReportRefusedPolicySet(admin_pb2.ReportRefusedPolicySetRequest(name=NAME))
            assert (await error_of(empty)).reason is Reason.MALFORMED_REQUEST

    async def test_declared_rules_come_change_and_go_with_the_file(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            declared = replace(DECLARED, policy_set=rules("home", models=("smollm2",)))
            for _ in range(2):
                await mesh.control.apply_declared(declared)
                assert (await read(mesh)).revision == 1
            assert [event.actor for event in told(mesh, "applied")] == ["configuration"]
            await mesh.control.apply_declared(DeclaredResources())
            gone = await read(mesh)
            assert (gone.revision, len(gone.rules), len(gone.data_classes)) == (2, 0, 0)

    async def test_rules_made_through_the_api_stay_when_the_file_has_none(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.tenant()
            written = await update(mesh, rules("home"))
            for _ in range(2):
                await mesh.control.apply_declared(DeclaredResources())
            assert await read(mesh) == written

    async def test_declared_rules_about_what_leaves_with_the_file_are_refused(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            declared = replace(DECLARED, policy_set=rules("home", models=("smollm2",)))
            await mesh.control.apply_declared(declared)
            for less in (replace(declared, tenants=[], limits=[]), replace(declared, deployments=[], limits=[])):
                with pytest.raises(InvalidPolicyError, match=r"rules\[0\]\.(principals|models)\[0\]"):
                    await mesh.control.apply_declared(less)
            assert (await read(mesh)).revision == 1
            assert len(told(mesh, "refused")) == 2

    async def test_a_declared_tenants_wrong_policy_names_the_tenant(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            tenant = admin_pb2.Tenant(name=TENANT, policy=admin_pb2.Policy(models=["gone"]))
            with pytest.raises(InvalidPolicyError, match=rf"{TENANT}: policy\.models\[0\]: no deployment offers"):
                await mesh.control.apply_declared(DeclaredResources(tenants=[tenant]))

    async def test_the_users_own_groups_are_jurisdictions(self, database_url: str) -> None:
        own = Jurisdictions({"nordics": frozenset({"se", "no"})})
        async with running(database_url, settings=replace(SETTINGS, jurisdictions=own)) as mesh:
            await mesh.tenant()
            wanted = rules(deny="nordics")
            wanted.data_classes["personal"].allow[:] = ["nordics", "nordics/SE"]
            written = await update(mesh, wanted)
            assert list(written.data_classes["personal"].allow) == ["nordics", "se"]

    async def test_a_set_that_could_not_be_published_is_refused(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            large = admin_pb2.PolicySet(name=NAME, rules=[admin_pb2.PolicyRule(name="x" * (600 * 1024))])
            assert "at most 524288 are taken" in (await error_of(update(mesh, large))).message

    async def test_what_a_rule_names_cannot_be_taken_from_under_it(self, database_url: str) -> None:
        async with running(database_url) as mesh:
            await mesh.control.apply_declared(DECLARED)
            await update(mesh, rules("home", models=("smollm2",)))
            name = "deployments/d1"
            renamed = await mesh.admin.GetDeployment(admin_pb2.GetDeploymentRequest(name=name))
            renamed.model = "smollm3"
            for call in (
                mesh.admin.DeleteTenant(admin_pb2.DeleteTenantRequest(name=TENANT)),
                mesh.admin.DeleteDeployment(admin_pb2.DeleteDeploymentRequest(name=name)),
                mesh.admin.UpdateDeployment(admin_pb2.UpdateDeploymentRequest(deployment=renamed)),
            ):
                error = await error_of(call)
                assert error.reason is Reason.MALFORMED_REQUEST
                assert "policies/default would no longer be right; change the rules first:\nrules[0]." in error.message
            with pytest.raises(RequestError, match="change the rules first"):
                await mesh.control.apply_declared(DeclaredResources())
            read_again = await mesh.admin.GetDeployment(admin_pb2.GetDeploymentRequest(name=name))
            assert read_again.model == "smollm2"
            renamed.aliases.append("smollm2")
            await mesh.admin.UpdateDeployment(admin_pb2.UpdateDeploymentRequest(deployment=renamed))
            await update(mesh, rules())
            await mesh.admin.DeleteTenant(admin_pb2.DeleteTenantRequest(name=TENANT))
