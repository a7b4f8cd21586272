"""Who hears of a run while it goes: the screen, TensorBoard, wandb, the profiler, and its curves."""
