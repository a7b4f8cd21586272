"""Sections are given to what they configure by name: no key goes astray, no option is without a key."""

import dataclasses
import inspect
from typing import Any

import pytest

import gru_jax as gj
from gru_jax.config.sections.methods import NewtonMethod, SequentialMethod
from gru_jax.config.sections.models import MODELS
from gru_jax.config.sections.models.recurrent import RecurrentModel
from gru_jax.config.sections.tasks import TASKS
from gru_jax.config.sections.tasks.task import Task

# Keys that Task.arguments makes something else of.
GATHERED = {
    "ForecastTask": {"horizon", "stride"},
    "SeriesForecastTask": {"target", "known", "time", "separator", "decimal", "horizon", "stride"},
    "SequencesTask": {"id", "label", "time", "features", "tags", "separator", "decimal"},
    "ListOpsTask": {"min_length", "max_length", "max_depth", "max_args"},
    "TableTask": {"train", "valid", "test", "tokens", "drop", "cut"},
}
OF_DATA = [section for section in TASKS if issubclass(section, Task)]
OF_CELLS = [section for section in MODELS if issubclass(section, RecurrentModel) and hasattr(section, "of")]


def parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


@pytest.mark.parametrize("section", OF_DATA, ids=lambda section: section.__name__)
def test_every_key_of_a_task_reaches_its_data(section: type[Task]) -> None:
    taken = parameters(section.data.shape) | parameters(section.data.load)
    assert set(section.model_fields) - taken == {"kind", "batch"} | GATHERED.get(section.__name__, set())


@pytest.mark.parametrize("section", OF_CELLS, ids=lambda section: section.__name__)
def test_every_key_of_a_model_reaches_its_cell(section: type[RecurrentModel]) -> None:
    # An option of the cell that has the name of one of the stack's says whose it is.
    own = {name.removeprefix("cell_") for name in set(section.model_fields) - set(RecurrentModel.model_fields)}
    assert own - parameters(section.of) <= {"recurrent_dropout"}


def test_the_options_of_methods_are_keys() -> None:
    for section, method, without in ((SequentialMethod, gj.Sequential, set()), (NewtonMethod, gj.Newton, {"init"})):
        options = {field.name for field in dataclasses.fields(method)}
        assert set(section.model_fields) - {"kind"} == options - without
