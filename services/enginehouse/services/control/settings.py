"""What control must be told."""

from dataclasses import dataclass, field
from pathlib import Path

from enginehouse.router import Jurisdictions


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Settings of the control process. Times are in seconds.

    Attributes:
        database_url: ``sqlite:///path`` or ``postgresql://user@host/name``.
        host: where LedgerService and AdminService listen.
        port: 0 takes a free one.
        socket_path: a Unix socket for the operator, who needs no key there. None: none.
        term_s: how long an allowance lasts.
        longest_request_s: no request runs longer; a share is in doubt until its end plus this.
        log_grace_s: how long after that, and after control was down, a late access log is waited for before the doubt
            is charged.
        clock_drift_s: how far the clocks of two hosts may be apart.
        resolve_interval_s: how often doubt is looked at.
        envoy_silence_s: an Envoy whose log nobody has shipped for so long is taken to be gone.
        jurisdictions: the tree that residency rules are read with: the user's own groups are in it.
        history_s: how long charges, ended windows and ended shares are kept.
    """

    database_url: str
    host: str = "127.0.0.1"
    port: int = 0
    socket_path: Path | None = None
    term_s: float = 900
    longest_request_s: float = 600
    log_grace_s: float = 60
    clock_drift_s: float = 5
    resolve_interval_s: float = 15
    envoy_silence_s: float = 24 * 3600
    history_s: float = 31 * 24 * 3600
    jurisdictions: Jurisdictions = field(default_factory=Jurisdictions)

    @property
    def term_ms(self) -> int:
        """How long an allowance lasts, in milliseconds."""
        return round(self.term_s * 1000)

    @property
    def doubt_ms(self) -> int:
        """From the end of a share's term to the moment at which its last request must have ended."""
        return round(self.longest_request_s * 1000)
