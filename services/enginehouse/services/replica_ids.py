"""How replicas are called: by nodes, which run them, and by routers, which wait for them."""


def replica_id_of(deployment_id: str, node: str, number: int) -> str:
    """The id of the `number`-th replica of a deployment on a node, from 0. It holds no dots, as subjects want it."""
    return f"{deployment_id}-{node}-{number}"
