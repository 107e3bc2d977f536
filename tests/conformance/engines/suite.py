"""The conformance suite: all cases, to be inherited by one class for each engine."""

import pytest

from tests.conformance.engines.answers import AnswerCases
from tests.conformance.engines.features import FeatureCases, OtherOperationCases
from tests.conformance.engines.life import LifeCases, LoadCases


@pytest.mark.asyncio(loop_scope="class")
class ConformanceSuite(AnswerCases, FeatureCases, OtherOperationCases, LoadCases, LifeCases):
    """One engine, real or emulated, under the supervisor that nodes use, asked by the client that nodes use."""
