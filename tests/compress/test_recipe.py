"""Recipes: what is chosen for which tensor, and their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeinfer.compress.allotment import SHARE
from edgeinfer.compress.recipe import SMALL, Choice, Recipe, Rule, Tensor
from edgeinfer.errors import UsageError

LARGE = Tensor("fc.weight", "Gemm", 100_000)


def test_default_is_kmeans_and_the_smallest_coder() -> None:
    choice = Recipe.simple().choose(LARGE)
    assert choice == Choice("kmeans", {"bits": 5}, None)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_bits_are_for_large_weights(bits: int) -> None:
    recipe = Recipe.simple("sign", "packed", bits)
    assert recipe.choose(LARGE) == Choice("sign", {"bits": bits}, "packed")
    assert recipe.choose(Tensor("t", "Gemm", SMALL)).quantizer == "sign"
    assert recipe.choose(Tensor("t", "Gemm", SMALL - 1)) == Choice("none", {"dtype": "float16"})
    assert recipe.choose(Tensor("t", "Conv", 9 * 960, depthwise=True)) == Choice("kmeans", {"bits": 8})


def test_smaller_tensors_get_more_bits() -> None:
    tensors = [Tensor("a[0]", "Conv", 8_000), Tensor("b", "Conv", 30_000), LARGE]
    tensors += [Tensor("d", "Conv", 9_000, depthwise=True), Tensor("s", "Gemm", 100)]
    recipe = Recipe.simple("sign", None, 5).refine(tensors)
    bits = [recipe.choose(t).options.get("bits") for t in tensors]
    assert bits[0] == 8 and bits[1] in (6, 7) and bits[2] == 5 and bits[3:] == [8, None]
    spent = sum(b * t.weights for b, t in zip(bits[:3], tensors, strict=False))
    assert spent <= (1 + SHARE) * 5 * 138_000
    assert Recipe.simple("kmeans", None, 8).refine(tensors) == Recipe.simple("kmeans", None, 8)


def test_none_rounds_nothing() -> None:
    recipe = Recipe.simple("none")
    for tensor in (LARGE, Tensor("t", "Conv", 9, depthwise=True)):
        assert recipe.choose(tensor) == Choice("none")
    with pytest.raises(UsageError, match="leave out the number of bits"):
        Recipe.simple("none", bits=4)


@pytest.mark.parametrize("bits", [0, 9, -1, True, 2.0])
def test_bits_that_are_none(bits: object) -> None:
    with pytest.raises(UsageError, match="1 to 8 bits"):
        Recipe.simple(bits=bits)  # type: ignore[arg-type]


def test_the_first_rule_that_matches_decides() -> None:
    recipe = Recipe(
        Choice("kmeans", {"bits": 4}),
        (
            Rule(Choice("none"), name="fc.*", min_weights=200_000),
            Rule(Choice("uniform"), name="fc.*", max_weights=100_000),
            Rule(Choice("sign"), op="Gemm"),
            Rule(Choice("none"), op="Gather"),
        ),
    )
    assert recipe.choose(LARGE).quantizer == "uniform"
    assert recipe.choose(Tensor("fc.weight", "Gemm", 150_000)).quantizer == "sign"
    assert recipe.choose(Tensor("fc.weight", "Gemm", 200_000)).quantizer == "none"
    assert recipe.choose(Tensor("table", "Gather", 5)).quantizer == "none"
    assert recipe.choose(Tensor("FC.weight", "Conv", 5)).quantizer == "kmeans"


@pytest.mark.parametrize("recipe", [Recipe.simple(), Recipe.simple("sign", "rans", 3), Recipe.simple("none")])
def test_files_say_the_same(tmp_path: Path, recipe: Recipe) -> None:
    recipe.save(tmp_path / "r.yaml")
    assert Recipe.load(tmp_path / "r.yaml") == recipe


def test_a_file_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        """
        default: {quantizer: kmeans, bits: 4}
        rules:
          - {depthwise: true, quantizer: kmeans, bits: 8}
          - {name: "layer4.*", op: Conv, quantizer: sign, bits: 5, coder: rans}
        """
    )
    recipe = Recipe.load(path)
    assert recipe.choose(Tensor("layer4.1.w", "Conv", 10)) == Choice("sign", {"bits": 5}, "rans")
    assert recipe.choose(LARGE) == Choice("kmeans", {"bits": 4})


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "expected 'default'"),
        ("[1, 2]", "expected 'default'"),
        ("default: kmeans", "expected 'default'"),
        ("default: {bits: 4}", "name of a quantizer"),
        ("default: {quantizer: none}\nrule: []", "expected 'default'"),
        ("default: {quantizer: none}\nrules: yes", "list of rules"),
        ("default: {quantizer: none}\nrules: [5]", "rule 1: expected conditions"),
        ("default: {quantizer: none}\nrules: [{quantizer: none}, {op: Conv}]", "rule 2: expected the name of a quantizer"),
        ("default: {quantizer: none}\nrules: [{quantizer: none, max_weights: many}]", "max_weights should be of type int"),
        ("default: {quantizer: none, coder: 7}", "name of a coder"),
        ("default: {quantizer: none", "expected YAML"),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=what):
        Recipe.load(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Recipe.load(tmp_path / "none.yaml")
