"""Members that some engine obeys and that would get around a bound, so that no body may hold them.

Everything else that is unknown passes where client and engine speak the same dialect.
"""

from collections.abc import Mapping

from enginehouse.adapters._fields import unsupported

_OUTPUT_LIMIT = "write max_tokens, which is what a budget holds for"
_CHOICES = "write n, which is what a budget holds for"
_OWN_TEMPLATE = "the deployment's own chat template is used, because prompts are bounded by it"
_INTERNAL = "it steers the inside of an engine; leave it out"

# llama.cpp's server (n_predict wins over max_tokens there, and n_cmpl is n: ran), and the request classes of vLLM and
# SGLang.
_MEMBERS: Mapping[str, str] = {
    "n_predict": _OUTPUT_LIMIT,
    "max_new_tokens": _OUTPUT_LIMIT,
    "n_cmpl": _CHOICES,
    "chat_template": _OWN_TEMPLATE,
    "id_slot": _INTERNAL,
    "rid": _INTERNAL,
    "request_id": _INTERNAL,
    "bootstrap_host": _INTERNAL,
    "bootstrap_port": _INTERNAL,
    "bootstrap_room": _INTERNAL,
    "kv_transfer_params": _INTERNAL,
    "disaggregated_params": _INTERNAL,
    "logits_processors": _INTERNAL,
    "custom_logit_processor": _INTERNAL,
    # How an image is cut decides what it costs.
    "mm_processor_kwargs": _INTERNAL,
    "media_io_kwargs": _INTERNAL,
}


def refuse_engine_members(members: Mapping[str, object]) -> None:
    """Refuses what would get around a bound.

    Raises:
        RequestError: UNSUPPORTED_FIELD, naming the first such member.
    """
    for name in members.keys() & _MEMBERS.keys():
        raise unsupported(name, _MEMBERS[name])
