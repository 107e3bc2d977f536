"""Drops replicas whose context is surely too small."""

from enginehouse.contract import Reason
from enginehouse.router.filters.size import Offer
from enginehouse.router.moment import Moment


class ContextFilter:
    """The output asked for must leave room for a prompt.

    How many tokens a prompt has is not known from its bytes, so a long prompt alone drops nothing: the engine refuses
    it.
    """

    name = "context"
    refusal = Reason.CONTEXT_TOO_LONG

    def drop(self, offer: Offer, moment: Moment) -> str | None:
        """See `SizeFilter`."""
        asked = offer.request.output_tokens_max
        context = offer.sample.capabilities.context_tokens_max
        if asked is None or asked < context:
            return None
        return f"{asked} output tokens do not fit into its context of {context} tokens"
