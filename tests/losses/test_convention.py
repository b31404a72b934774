"""The convention of losses/__init__.py: `name_plain` is the formula of `name`, in the same file."""

import importlib
import inspect
import pkgutil

import pytest

import losses

MODULES = [importlib.import_module(f"losses.{found.name}") for found in pkgutil.iter_modules(losses.__path__)]
PLAIN = [
    (module, name)
    for module in MODULES
    for name, value in vars(module).items()
    if name.endswith("_plain") and inspect.isfunction(value) and value.__module__ == module.__name__
]


@pytest.mark.parametrize("module, name", PLAIN, ids=lambda value: getattr(value, "__name__", value))
def test_a_plain_form_is_short_and_has_a_fast_twin(module, name):
    """A twin takes the arguments of the plain form, in its order; what it takes in addition has a default."""
    plain, fast = getattr(module, name), getattr(module, name.removesuffix("_plain"))
    takes, twin = (list(inspect.signature(form).parameters) for form in (plain, fast))
    assert twin[: len(takes)] == takes or set(takes) < set(twin)
    assert f"`{name}`" in fast.__doc__
    lines = inspect.getsource(plain).split('"""')[2].strip().splitlines()
    assert len(lines) <= 15, (name, len(lines))


def test_every_method_has_one():
    assert {module.__name__.removeprefix("losses.") for module, _ in PLAIN} >= {
        "cross_entropy", "eums", "maskcontrast", "maskformer", "mib", "plop", "simformer", "ssul", "zs3",
    }  # fmt: skip
