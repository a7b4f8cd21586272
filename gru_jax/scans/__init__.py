"""Scans: how the steps of a cell run over time. A method finds the trajectory; one derivative serves them all."""

from gru_jax.scans.associative import Associative as Associative
from gru_jax.scans.over_time import scan as scan
from gru_jax.scans.recurrences import linear_scan as linear_scan
from gru_jax.scans.select import Method as Method
from gru_jax.scans.sequential import Sequential as Sequential

__all__ = ["Associative", "Method", "Sequential", "linear_scan", "scan"]
