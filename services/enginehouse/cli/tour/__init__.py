"""The guided tour: six stops, each of which shows one promise kept by the running mesh."""

from enginehouse.cli.tour.take import take_tour

__all__ = ["take_tour"]
