"""Tests; packages, so that one room takes what another has made."""
