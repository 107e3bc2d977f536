"""Lets `python -m enginehouse.cli` be the command."""

from enginehouse.cli.main import main

main()
