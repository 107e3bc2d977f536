"""Engine processes: command lines, phases, supervision, drain."""
