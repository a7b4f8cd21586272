"""Every public name is exported, documented in its docstring, and on a page of docs/api/."""

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import gru_jax
import gru_jax.linen
import gru_jax.nnx

API_PAGES = sorted((Path(__file__).parent.parent / "docs" / "api").glob("*.md"))
ON_PAGES = {
    name
    for page in API_PAGES
    for name in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE)
}
MODULES = {"gru_jax": gru_jax, "gru_jax.nnx": gru_jax.nnx, "gru_jax.linen": gru_jax.linen}
PUBLIC = {
    f"{name}.{member}": getattr(module, member)
    for name, module in MODULES.items()
    for member in module.__all__
    if not isinstance(getattr(module, member), ModuleType) and not member.startswith("__")
}
CALLABLE = {name: thing for name, thing in PUBLIC.items() if callable(thing)}


def parameters(thing: object) -> list[str]:
    """The parameters a caller can name."""
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return []
    return [p.name for p in signature.parameters.values() if p.name not in ("self", "cls")]


def described(docstring: str) -> set[str]:
    """The names that a docstring explains under Args or Attributes: `name: what it is`."""
    headings = re.findall(r"^ *\*{0,2}([\w, ]+?):(?= |$)", docstring, flags=re.MULTILINE)
    return {name.strip() for heading in headings for name in heading.split(",")}


@pytest.mark.parametrize("name", MODULES)
def test_all_lists_what_the_module_offers(name: str) -> None:
    module = MODULES[name]
    offered = {
        member
        for member, thing in vars(module).items()
        if not member.startswith("_") and not isinstance(thing, ModuleType)
    }
    listed = {member for member in module.__all__ if not member.startswith("__")}
    assert offered <= listed, f"imported, but not in {name}.__all__: {sorted(offered - listed)}"
    assert len(module.__all__) == len(set(module.__all__))


@pytest.mark.parametrize("name", PUBLIC)
def test_has_a_place_in_the_api_reference(name: str) -> None:
    assert name in ON_PAGES, f"add the line `::: {name}` to a page of docs/api/"


def test_the_api_reference_lists_only_what_exists() -> None:
    of_these_modules = {name for name in ON_PAGES if name.rpartition(".")[0] in MODULES}
    assert of_these_modules <= set(PUBLIC)


@pytest.mark.parametrize("name", CALLABLE)
def test_docstring_explains_every_parameter(name: str) -> None:
    thing = CALLABLE[name]
    docstring = inspect.getdoc(thing) or ""
    if inspect.isclass(thing):
        docstring += "\n" + (inspect.getdoc(thing.__init__) or "")
    assert docstring.strip(), "no docstring"
    missing = [p for p in parameters(thing) if p not in described(docstring)]
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
