"""What a forecasting model is given and tells, in its order, for those who feed it elsewhere."""


from gru_jax.data.missing import Missing
from gru_jax.data.series.facts import SeriesFacts
from gru_jax.data.series.table import Reading
from gru_jax.types import Plain


def about_series(facts: SeriesFacts, reading: Reading, missing: Missing) -> dict[str, Plain]:
    """Inputs and outputs of a task of series.

    Args:
        facts: of the series.
        reading: how its file is read.
        missing: what becomes of a value that is missing.

    Returns:
        `inputs`, an entry for each number of a step in its order: of which `column`, `what` it is ("value", "sine",
        "cosine", "mask", "time since"), of the row how far `ahead`, and of a value the `mean` it is taken less and the
        `deviation` over which. `outputs`, the sizes that the numbers told divide into, the last one fastest; and
        `names`, `horizon`, `quantiles`, `relative` and `scale` of the facts.

    Example:
        >>> import numpy as np
        >>> scale, starts = {"load": (3.0, 2.0)}, (np.zeros(1, int),) * 3
        >>> facts = SeriesFacts(("load",), np.zeros((9, 1)), None, scale, 1, 4, (), starts, 5)
        >>> about_series(facts, Reading(("load",)), "refuse")["inputs"]
        [{'column': 'load', 'what': 'value', 'ahead': 0, 'mean': 3.0, 'deviation': 2.0}]
    """
    inputs: list[dict[str, Plain]] = []
    for column in reading.columns:
        ahead = 0 if column in facts.names else facts.horizon
        mean, deviation = facts.scale[column]
        inputs.append({"column": column, "what": "value", "ahead": ahead, "mean": mean, "deviation": deviation})
    for word in reading.words:
        inputs += [{"column": word, "what": what, "ahead": facts.horizon} for what in ("sine", "cosine")]
    if missing == "gaps":
        shown = [{"column": each["column"], "of": each["what"], "ahead": each["ahead"]} for each in inputs]
        inputs += [{**each, "what": what} for what in ("mask", "time since") for each in shown]
    told = {name: getattr(facts, name) for name in ("names", "horizon", "quantiles", "relative", "scale")}
    outputs = {"horizon": facts.horizon, "columns": len(facts.names), "quantiles": max(1, len(facts.quantiles))}
    return {**told, "inputs": inputs, "outputs": outputs}
