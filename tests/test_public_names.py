"""Every public name is exported, documented in its docstring, and on a page of docs/api/."""

import inspect
import re
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import gru_jax
from gru_jax.layers.spec import GRUSpec
from tests.interop import keras_oracle

API_PAGES = sorted((Path(__file__).parent.parent / "docs" / "api").glob("*.md"))
ON_PAGES = {
    name
    for page in API_PAGES
    for name in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE)
}
MODULES = {
    "gru_jax": gru_jax,
    **{f"gru_jax.interop.{name}": getattr(gru_jax.interop, name) for name in gru_jax.interop.__all__},
    "gru_jax.linen": gru_jax.linen,
    "gru_jax.models": gru_jax.models,
    "gru_jax.nnx": gru_jax.nnx,
}
if find_spec("keras"):
    keras_oracle.keras()  # on its JAX backend
    MODULES["gru_jax.inside.keras"] = gru_jax.inside.keras
PUBLIC = {
    f"{name}.{member}": getattr(module, member)
    for name, module in MODULES.items()
    for member in module.__all__
    if not isinstance(getattr(module, member), ModuleType)
}
CALLABLE = {name: thing for name, thing in PUBLIC.items() if callable(thing)}


def parameters(thing: object) -> list[str]:
    """The parameters that a caller of `thing` passes and that this package decides on."""
    if getattr(thing, "_is_protocol", False):
        return []
    if inspect.isclass(thing):
        # Not the class itself: a metaclass may hide its signature.
        own = [vars(thing)[name] for name in ("__init__", "__new__") if name in vars(thing)]
        if not own:
            return []
        thing = own[0]
    # `parent` and `name` come with every Linen module.
    others = ("self", "_cls", "parent", "name")
    return [name for name in inspect.signature(thing).parameters if name not in others]


def described(docstring: str) -> set[str]:
    """The names that a docstring explains under Args or Attributes: `name: what it is`."""
    headings = re.findall(r"^ *\*{0,2}([\w, ]+?):(?= |$)", docstring, flags=re.MULTILINE)
    return {name.strip() for heading in headings for name in heading.split(",")}


@pytest.mark.parametrize("name", MODULES)
def test_all_lists_what_the_module_offers(name: str) -> None:
    module = MODULES[name]
    # The package re-exports; the two modules of layers also import what they only use.
    home = "gru_jax" if module is gru_jax else module.__name__
    offered = {
        member
        for member, thing in vars(module).items()
        if not member.startswith("_") and getattr(thing, "__module__", "").startswith(home)
    }
    assert offered <= set(module.__all__), f"not in {name}.__all__: {offered - set(module.__all__)}"
    assert len(module.__all__) == len(set(module.__all__))


@pytest.mark.parametrize("name", PUBLIC)
def test_has_a_place_in_the_api_reference(name: str) -> None:
    assert name in ON_PAGES, f"add the line `::: {name}` to a page of docs/api/"


@pytest.mark.parametrize("name", CALLABLE)
def test_docstring_explains_every_parameter(name: str) -> None:
    thing = CALLABLE[name]
    docstring = inspect.getdoc(thing) or ""
    if inspect.isclass(thing):
        docstring += "\n" + (inspect.getdoc(thing.__init__) or "")
    assert docstring.strip(), "no docstring"
    explained = described(docstring)
    if "GRUSpec" in docstring:
        # The layers share their options and refer to the one place that explains them.
        explained |= described(GRUSpec.__doc__) | set(re.findall(r"`(\w+)`", docstring))
    missing = [p for p in parameters(thing) if p not in explained]
    assert not missing, f"not explained: {missing}"


@pytest.mark.parametrize("name", [n for n, thing in CALLABLE.items() if inspect.isfunction(thing)])
def test_function_says_what_it_returns_and_shows_it(name: str) -> None:
    docstring = inspect.getdoc(CALLABLE[name]) or ""
    assert re.search(r"^Returns:$", docstring, flags=re.MULTILINE), "no Returns section"
    assert ">>>" in docstring, "no example"


@pytest.mark.parametrize("name", [n for n, thing in CALLABLE.items() if inspect.isclass(thing)])
def test_public_methods_have_docstrings(name: str) -> None:
    bare = [
        method
        for method, function in vars(CALLABLE[name]).items()
        if inspect.isfunction(function) and not method.startswith("_") and not function.__doc__
    ]
    assert not bare, f"without a docstring: {bare}"
