"""A CSV file of series as windows to forecast from: its numbers, its times, what is known ahead."""
