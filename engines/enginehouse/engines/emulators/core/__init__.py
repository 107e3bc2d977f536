"""What the emulated engines share. Nothing in here knows one of them: their habits come as data."""
