"""Published tables, made again: what a table asks for, the runs behind it, its results as text."""
