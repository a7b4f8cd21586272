"""One config with many values: every combination a run, those of one shape trained at once, the best one picked."""
