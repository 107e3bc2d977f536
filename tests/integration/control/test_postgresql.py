"""Control on PostgreSQL."""

import pytest

from tests.integration.control.access_log_suite import AccessLogSuite
from tests.integration.control.admin_suite import AdminSuite
from tests.integration.control.allowances_suite import AllowancesSuite
from tests.integration.control.concurrency_suite import ConcurrencySuite
from tests.integration.control.crash_suite import CrashSuite
from tests.integration.control.declared_suite import DeclaredSuite
from tests.integration.control.ledger_suite import LedgerSuite
from tests.integration.control.policy_suite import PolicySuite
from tests.integration.control.publisher_suite import PublisherSuite
from tests.integration.control.schema_suite import SchemaSuite


@pytest.fixture
def database_url(postgresql_url: str) -> str:
    return postgresql_url


class TestLedger(LedgerSuite):
    """The ledger."""


class TestAccessLog(AccessLogSuite):
    """Access logs and doubt."""


class TestAllowances(AllowancesSuite):
    """Routers' allowances."""


class TestAdmin(AdminSuite):
    """Resources."""


class TestDeclared(DeclaredSuite):
    """The configuration file."""


class TestPolicy(PolicySuite):
    """The rules."""


class TestPublisher(PublisherSuite):
    """Desired state."""


class TestSchema(SchemaSuite):
    """The schema."""

    @pytest.fixture
    def database_url(self, fresh_postgresql_url: str) -> str:
        return fresh_postgresql_url


class TestConcurrency(ConcurrencySuite):
    """Many hands at once."""


class TestCrash(CrashSuite):
    """Control killed."""
