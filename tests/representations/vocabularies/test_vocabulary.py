"""A vocabulary's file: what is written is read, and what is none is refused in a sentence."""

import pickle
from dataclasses import replace

import pytest
import torch
from helpers.vocabularies import small
from safetensors.torch import save_file

from invrep.errors import InvrepError
from invrep.representations.vocabularies.vocabulary import Vocabulary, load, save


@pytest.mark.parametrize("kind", ["words", "mixture", "dictionary"])
def test_a_file_has_all_of_a_vocabulary_and_its_identity(tmp_path, kind):
    made = small(kind)
    save(made, tmp_path / "new" / "a.safetensors")
    found = load(tmp_path / "new" / "a.safetensors")
    assert found.kind == kind and found.settings == made.settings and found.words == 12 and found.id == made.id
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in made.tensors.items())
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.safetensors"]


def test_every_value_and_setting_is_part_of_the_identity():
    made = small("words")
    other = made.tensors["centers"].clone()
    other[3, 4] += 1e-6
    others = [
        replace(made, tensors={"centers": other}),
        replace(made, settings={**made.settings, "unit": False}),
        Vocabulary("dictionary", {"atoms": made.tensors["centers"]}, made.settings),
    ]
    assert len({made.id, *(vocabulary.id for vocabulary in others)}) == 4


def test_a_vocabulary_stored_in_half_precision_is_read_as_float32(tmp_path):
    made = small("words")
    save(replace(made, tensors={"centers": made.tensors["centers"].half().float()}), tmp_path / "a.safetensors")
    assert load(tmp_path / "a.safetensors").tensors["centers"].dtype == torch.float32


def files(folder):
    whole = folder / "whole.safetensors"
    save(small("words"), whole)
    content = whole.read_bytes()
    (folder / "cut.safetensors").write_bytes(content[: len(content) // 2])
    (folder / "head.safetensors").write_bytes(content[:5])
    (folder / "text.safetensors").write_text("words, words, words")
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "words.pkl").write_bytes(pickle.dumps({"centers": [1.0]}))
    save_file({"centers": torch.ones(3, 4)}, folder / "weights.safetensors")
    (folder / "folder.safetensors").mkdir()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("cut.safetensors", "is cut short or damaged"),
        ("head.safetensors", "is cut short or damaged"),
        ("text.safetensors", "is cut short or damaged"),
        ("empty.safetensors", "is cut short or damaged"),
        ("words.pkl", r"is no \.safetensors file"),
        ("weights.safetensors", "holds tensors but is no vocabulary"),
        ("folder.safetensors", "There is no vocabulary"),
        ("none.safetensors", "There is no vocabulary"),
    ],
)
def test_what_is_no_vocabulary_is_refused_in_a_sentence_that_says_how_to_make_one(tmp_path, file, said):
    files(tmp_path)
    with pytest.raises(InvrepError, match=f"{file}' {said}|{said}.*{file}.*; fit one with: invrep vocabulary rep="):
        load(tmp_path / file)


def test_tensors_that_do_not_fit_the_kind_are_refused():
    made = small("mixture")
    for tensors, said in (
        ({"means": made.tensors["means"]}, "holds means, variances, priors, not means"),
        (made.tensors | {"priors": torch.ones(3)}, r"priors has the shape \(3,\)"),
        (made.tensors | {"variances": -made.tensors["variances"]}, "must be above 0"),
        (made.tensors | {"means": made.tensors["means"] / 0}, "finite float32"),
    ):
        with pytest.raises(InvrepError, match=said):
            replace(made, tensors=tensors)
