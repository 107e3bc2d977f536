"""The mesh's accounting on virtual time: real classes, a seeded lossy world, and oracles that know the truth."""
