"""Forecasts of series: in the data's units, beside baselines, drawn, and of what comes next."""
