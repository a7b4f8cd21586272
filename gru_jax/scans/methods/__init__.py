"""Methods: how the steps of a scan run over time."""
