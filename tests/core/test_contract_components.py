"""What every shipped component owes its users of any kind."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from reaemb_bench.catalogue import CATALOGUE
from reaemb_bench.core.component import Component, Step
from reaemb_bench.core.errors import RecipeError
from reaemb_bench.core.plan import signature
from reaemb_bench.core.registry import build, find, summary

EVERY = [(kind, name) for kind, table in CATALOGUE.items() for name in table]
REQUIRED = {
    ("backbone", "bidirectional"): {"of": "tiny"},
    ("backbone", "causal-lm"): {"model": "some/model"},
    ("source", "amazon-2014"): {"reviews": "r.json", "metadata": "m.json"},
    ("source", "amazon-2018"): {"reviews": "r.json", "metadata": "m.json"},
    ("source", "amazon-2023"): {"reviews": "r.jsonl", "metadata": "m.jsonl"},
    ("source", "goodreads"): {"reviews": "i.json.gz", "metadata": "b.json.gz"},
    ("source", "google-local"): {"state": "Vermont"},
    ("source", "reaemb-authors"): {"interactions": "inter.txt", "items": "item_info.jsonline"},
    ("source", "recbole-atomic"): {"path": "shop.inter"},
    ("source", "yelp"): {"reviews": "r.json", "metadata": "b.json"},
    ("source", "table"): {"interactions": "i.csv", "items": "t.csv"},
    ("step", "llm"): {"backbone": "tiny"},
    ("step", "api-embedder"): {"model": "text-embedding-3-small"},
    ("step", "prepare"): {"source": "simulated"},
    ("step", "sentence-encoder"): {"model": "./no/such/folder"},
    ("step", "vectors"): {"path": "v.npy"},
}


def made(kind: str, name: str) -> Component:
    return build(kind, {"use": name, **REQUIRED.get((kind, name), {})})


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_it_says_what_it_is_and_what_each_setting_does(kind: str, name: str) -> None:
    component = find(kind, name)
    assert component.__doc__
    assert " ".join(component.__doc__.split()).startswith(summary(kind, name).removesuffix(".")), "see catalogue.py"
    assert all(field.description for field in component.model_fields.values()), "a setting has no docstring"


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_its_spec_builds_it_again(kind: str, name: str) -> None:
    component = made(kind, name)
    assert build(kind, component.spec()) == component
    assert build(kind, component.spec()).identity() == component.identity()


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_it_refuses_a_setting_that_it_does_not_have(kind: str, name: str) -> None:
    with pytest.raises(RecipeError, match="no setting is called 'nonsense'"):
        build(kind, {"use": name, **REQUIRED.get((kind, name), {}), "nonsense": 1})


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_it_is_frozen(kind: str, name: str) -> None:
    component = made(kind, name)
    for setting in type(component).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(component, setting, None)


@pytest.mark.parametrize("name", CATALOGUE["step"])
def test_steps_declare_artefacts_and_leaky_ones_say_so(name: str) -> None:
    step = made("step", name)
    assert isinstance(step, Step)
    wants, makes, _ = signature(step, name)
    assert makes
    asks_for_test = any(wanted.__name__ == "TestTargets" for wanted in wants.values())
    assert not asks_for_test or step.data_access == "test" or step.leaks


def test_listing_components_imports_none_of_them() -> None:
    code = (
        "import sys; from reaemb_bench.core.registry import kinds, names, summary\n"
        "lines = [summary(kind, name) for kind in kinds() for name in names(kind)]\n"
        "print([name for name in sys.modules if name.startswith('reaemb_bench.') and '.core' not in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['reaemb_bench.catalogue']"


@pytest.mark.slow
def test_finding_every_component_imports_no_heavy_package() -> None:
    code = (
        "import sys; from reaemb_bench.catalogue import CATALOGUE; from reaemb_bench.core.registry import find\n"
        "from reaemb_bench.core.settings_only import import_settings_only\n"
        "import_settings_only()\n"
        "[find(kind, name) for kind, table in CATALOGUE.items() for name in table]\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'mlflow', 'optuna') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
