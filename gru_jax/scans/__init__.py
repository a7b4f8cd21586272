"""Scans: how the steps of a cell run over time. A method finds the trajectory; one derivative serves them all."""

from gru_jax.scans.diagnosis import Diagnosis as Diagnosis
from gru_jax.scans.diagnosis import diagnose as diagnose
from gru_jax.scans.linear.linear_scan import linear_scan as linear_scan
from gru_jax.scans.methods.associative import Associative as Associative
from gru_jax.scans.methods.newton import Newton as Newton
from gru_jax.scans.methods.sequential import Sequential as Sequential
from gru_jax.scans.methods.time_sharded import TimeSharded as TimeSharded
from gru_jax.scans.over_time import scan as scan
from gru_jax.scans.select import Method as Method
from gru_jax.scans.sharded_scan import time_sharded as time_sharded
from gru_jax.scans.trajectory import Stats as Stats

__all__ = [
    "Associative",
    "Diagnosis",
    "Method",
    "Newton",
    "Sequential",
    "Stats",
    "TimeSharded",
    "diagnose",
    "linear_scan",
    "scan",
    "time_sharded",
]
