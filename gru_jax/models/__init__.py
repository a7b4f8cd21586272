"""Whole models as (init, apply) pairs: a stack of recurrent layers and what reads it out."""
