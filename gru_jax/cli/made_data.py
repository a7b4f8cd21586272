"""Small tables, made the same every time, that `gru-jax new` puts beside the configs that read them."""

import numpy as np


def series() -> str:
    """60 days of the hourly load of a town, which follows the clock, the weekend and the temperature.

    Example:
        >>> series().splitlines()[:2]
        ['time,load,temperature', '2025-01-06 00:00,40.53,6.9']
    """
    rng = np.random.default_rng(0)
    hours = np.arange(60 * 24)
    clock = 2 * np.pi * (hours % 24 - 8) / 24
    weather = np.repeat(rng.normal(0, 3, 60), 24)
    load = 50 + 10 * np.sin(clock) - 8 * (hours // 24 % 7 >= 5) - weather + rng.normal(0, 1, len(hours))
    times = np.datetime_as_string(np.datetime64("2025-01-06T00") + hours, unit="m")
    rows = zip(times, load, 10 + weather + 4 * np.sin(clock), strict=True)
    return "time,load,temperature\n" + "".join(f"{at.replace('T', ' ')},{a:.2f},{b:.1f}\n" for at, a, b in rows)


def sequences() -> str:
    """120 recordings of two sensors, 20 to 60 steps long, in which the second follows the first or goes before it.

    Example:
        >>> sequences().splitlines()[:2]
        ['id,time,left,right,label', '0,0,1.18,1.18,after']
    """
    rng = np.random.default_rng(0)
    lines = ["id,time,left,right,label"]
    for number in range(120):
        label, lag = (("before", -1.0), ("after", 1.0))[rng.integers(2)]
        time = np.arange(rng.integers(20, 61))
        phase = 0.4 * time + rng.uniform(0, 2 * np.pi)
        left, right = np.sin([phase, phase - lag]) + rng.normal(0, 0.3, (2, len(time)))
        lines += [f"{number},{at},{a:.2f},{b:.2f},{label}" for at, a, b in zip(time, left, right, strict=True)]
    return "\n".join(lines) + "\n"
