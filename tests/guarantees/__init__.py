"""The guarantees of the ledger, measured on real meshes: `python -m tests.guarantees` (see `make guarantees`)."""
