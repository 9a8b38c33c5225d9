"""The word list notices variables and phrases, and leaves standard English alone."""

import pytest

from tests.plain_english import faults_of


@pytest.mark.parametrize(
    "code",
    [
        "made = 1",
        "for each in ():\n    pass",
        "def f(found):\n    pass",
        "x = lambda told: 1",
        "[place for place in ()]",
    ],
)
def test_a_variable_without_a_noun_is_noticed(code: str) -> None:
    assert {(kind, line) for kind, line, _ in faults_of(code, ".py")} == {("variables", 1)}


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ('x = 1\n"""There\n    is a row beside it."""\n', ".py"),
        ("x = 1\n# whatever\n", ".py"),
        ('x = 1\nprint(f"{x} is no step")\n', ".py"),
        ("A page.\nLeft out where there\n  is nothing.\n", ".md"),
        ("[train]\nepochs = 2  # it stops behind the second\n", ".toml"),
    ],
)
def test_a_phrase_is_noticed_at_its_line(text: str, suffix: str) -> None:
    kinds = [(kind, line) for kind, line, _ in faults_of(text, suffix)]
    assert kinds == [("phrases", 3 if '"""' in text else 2)]


@pytest.mark.parametrize(
    "text", ["It is no longer read.", "Besides, there are two.", "Returns None if there is no row."]
)
def test_standard_english_is_left_alone(text: str) -> None:
    assert list(faults_of(text, ".md")) == []
