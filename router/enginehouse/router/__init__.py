"""The decision core: pure functions and frozen data. No I/O, no clock, no randomness."""
