"""The node process: engines under supervision, and their adapters."""

from enginehouse.services.node.process import Node, NodeSettings

__all__ = ["Node", "NodeSettings"]
