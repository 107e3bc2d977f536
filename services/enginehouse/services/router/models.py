"""The models that a key may use, as OpenAI's list has them."""

from enginehouse.router import Principal, View


def list_models(view: View, key_name: str, created_s: int) -> list[dict[str, object]]:
    """One entry per public name and alias that the key's tenant may use.

    Args:
        view: the fleet.
        key_name: resource name of the key.
        created_s: Unix time; OpenAI's clients expect one.
    """
    segments = key_name.split("/")
    principal = Principal(segments[1], segments[3], segments[5], segments[7])
    listed: list[dict[str, object]] = []
    for name in sorted(view.models):
        policy = view.policy(principal, name)
        usable = [
            replica
            for replica in view.candidates(name)
            if (not replica.tenants or principal.tenant_name in replica.tenants)
            and (policy.models is None or replica.model in policy.models)
        ]
        if usable:
            context = max(replica.capabilities.context_tokens_max for replica in usable)
            listed.append(
                {
                    "id": name,
                    "object": "model",
                    "created": created_s,
                    "owned_by": "enginehouse",
                    "context_length": context,
                }
            )
    return listed
