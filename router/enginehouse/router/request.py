"""What a decision needs to know of a request: numbers and names, never its text."""

from dataclasses import dataclass

from enginehouse.v1.common_pb2 import ChipClass, Dialect, Feature, Operation, Quality


@dataclass(frozen=True, slots=True)
class Principal:
    """Whose request it is. Ids, not resource names."""

    organization: str
    tenant: str
    project: str
    key: str

    @classmethod
    def from_key_name(cls, name: str) -> "Principal":
        """Whose key it is, by its resource name."""
        return cls(*name.split("/")[1::2])

    @property
    def tenant_name(self) -> str:
        """Resource name of the tenant."""
        return f"organizations/{self.organization}/tenants/{self.tenant}"

    @property
    def key_name(self) -> str:
        """Resource name of the key, below every scope that its requests are charged to."""
        return f"{self.tenant_name}/projects/{self.project}/keys/{self.key}"


@dataclass(frozen=True, slots=True)
class Hints:
    """What the caller asks of routing. A hint narrows what policy allows and never widens it.

    Attributes:
        residency: jurisdictions as `Jurisdictions` spells them. Empty: no wish.
        chip, quality: 0 (UNSPECIFIED): no wish.
        price_nanousd_max: of the whole request. None: no wish.
        session: requests of one session prefer one replica. Empty: none.
    """

    residency: frozenset[str] = frozenset()
    chip: ChipClass.ValueType = ChipClass.CHIP_CLASS_UNSPECIFIED
    quality: Quality.ValueType = Quality.QUALITY_UNSPECIFIED
    price_nanousd_max: int | None = None
    session: str = ""


NO_HINTS = Hints()


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        id: Envoy's request id.
        model: as the client wrote it.
        prompt_text_bytes: UTF-8 bytes of everything that the model reads; no token is shorter than a byte.
        message_count, image_count: of a conversation.
        output_tokens_max: as the client bounds it, for one choice. None: it does not.
        choices: how many answers to generate, best-of included.
        input_count: how many texts to embed, prompts to complete, or documents to rank.
        prompt_tokens: the prompt's exact tokens, template included, for those deployments that have counted it.
        prefix_blocks: how many blocks of the prompt's beginning were hashed for affinity.
    """

    id: str
    operation: Operation.ValueType
    dialect: Dialect.ValueType
    model: str
    principal: Principal
    is_stream: bool = False
    features: frozenset[Feature.ValueType] = frozenset()
    prompt_text_bytes: int = 0
    message_count: int = 0
    image_count: int = 0
    output_tokens_max: int | None = None
    choices: int = 1
    input_count: int = 1
    hints: Hints = NO_HINTS
    prompt_tokens: tuple[tuple[str, int], ...] = ()
    prefix_blocks: int = 0

    @property
    def sticky_key(self) -> str:
        """What ties are broken by: the session if there is one, so that it stays; otherwise the request."""
        return f"{self.principal.tenant_name}/{self.hints.session or self.id}"
