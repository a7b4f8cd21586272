"""One HTML file that says what came of runs, with nothing outside it."""
