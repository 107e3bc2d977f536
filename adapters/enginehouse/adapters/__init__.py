"""Engine dialects and client dialects, translated through one canonical request."""
