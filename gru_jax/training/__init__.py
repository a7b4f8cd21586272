"""Training as pure functions: the step, its losses and sums, precision and devices. Nothing opens a file here."""
