"""Jobs with vocabulary codes: a descriptor is chosen by name, and what does not fit is one sentence."""

from dataclasses import replace

import pytest
import torch
from helpers.vocabularies import KINDS, small

import invrep
from invrep.api import representation
from invrep.errors import InvrepError
from invrep.priors.terms import TotalVariation
from invrep.representations.vocabularies.descriptors import describe, rows_of, unit
from invrep.representations.vocabularies.vocabulary import Vocabulary, save


@pytest.fixture
def words(tmp_path):
    save(small("words"), tmp_path / "words.safetensors")
    return "rep.vocabulary=words.safetensors"


def test_a_job_inverts_a_pyramid_and_its_results_do_not_depend_on_the_files_name(job, photos, tmp_path, words):
    settings = ("rep=llc", "rep.pyramid=[1,2]", f"data.path={photos}", "data.limit=2")
    first = job(*settings, words)
    assert first.status == 0 and first.value > 0, first.err
    assert "error/2x2" in (first.folder / "metrics.csv").read_text()
    (tmp_path / "words.safetensors").rename(tmp_path / "same.safetensors")
    again = job(*settings, "rep.vocabulary=same.safetensors")
    assert again.folder == first.folder and "2 of 2 are finished" in again.out
    other = small("words").tensors["centers"] + 0.01
    save(replace(small("words"), tensors={"centers": other}), tmp_path / "same.safetensors")
    job(*settings, "rep.vocabulary=same.safetensors", "dry_run=false")
    assert len([path for path in first.output.iterdir() if path.is_dir()]) == 2


def test_a_networks_layer_is_a_descriptor_by_either_key(job, photos, tmp_path):
    layer = representation("alexnet", layer="relu1", weights="random")
    rows = unit(rows_of(layer(torch.rand(1, 3, 64, 64)), layer).values)[0, :9].contiguous()
    settings = {"descriptor": describe(layer), "unit": True, "color": "rgb"}
    save(Vocabulary("words", {"centers": rows}, settings), tmp_path / "a.safetensors")
    given = ("rep=vlad", "rep.descriptor=alexnet", "rep.descriptor.weights=random", "rep.vocabulary=a.safetensors")
    for key in ("layer", "rep.descriptor.layer"):
        found = job(*given, f"{key}=relu1", f"data.path={photos}", "dry_run=true")
        assert found.status == 0 and "224×224 px" in found.out, found.err
    listed = job("rep=vlad", "rep.descriptor=alexnet", "layer=list")
    assert listed.status == 0 and "relu5" in listed.out


def test_a_sweep_over_descriptors_names_them_as_typed(job, photos, words):
    found = job("-m", "rep=bovw", "rep.descriptor=dsift,hog", words, f"data.path={photos}", "dry_run=true")
    assert "rep.descriptor=hog" in found.out and "rep@" not in found.out.replace("rep@rep.descriptor=hog: ", "")
    assert "has words of dsift" in found.err and "but rep.descriptor is hog" in found.err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            ["rep.descriptor.bin=4"],
            "has words of dsift (step=3, bin=5, variant=vlfeat), but rep.descriptor is dsift (st",
        ),
        (["rep.words=13"], "has 12 words, not rep.words=13; leave rep.words out, or fit another: invrep vocabulary"),
        (["rep=fisher"], "holds words of a k-means, and rep=fisher needs a mixture of Gaussians"),
        (["rep.unit=false"], "set rep.unit=true"),
        (["rep.projection=8"], "projects onto 0 components"),
        (["rep.pyramid=[1,1]"], "rep.pyramid=[1, 1] is not valid"),
        (["rep.pyramid=[0]"], "rep.pyramid=0 is not valid"),
        (["optim.straight_through=false"], "constant almost everywhere"),
        (["layer=relu5"], "has no layers; leave layer=relu5 out"),
        (["rep.descriptor=sift"], "There is no rep=sift; the nearest"),
        (["rep.vocabulary=none.safetensors"], "There is no vocabulary 'none.safetensors'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(job, photos, words, typed, said):
    rep = [] if any(key.startswith("rep=") for key in typed) else ["rep=bovw"]
    vocabulary = [] if any("vocabulary" in key for key in typed) else [words]
    found = job(*rep, *vocabulary, *typed, f"data.path={photos}")
    assert found.status == 1 and said in found.err and len(found.err.strip().splitlines()) == 1, found.err


def test_a_representation_without_descriptors_refuses_one(job):
    found = job("rep=hog", "rep.descriptor=vgg16")
    assert found.status == 1 and "The chosen rep has no key 'rep.descriptor', which is one of rep=bovw" in found.err


def test_grey_words_are_refused_for_colour_photos_of_a_descriptor_that_keeps_colour():
    hog = representation("hog")
    rows = unit(rows_of(hog(torch.rand(1, 1, 64, 64)), hog).values)[0, :9].contiguous()
    grey = Vocabulary("words", {"centers": rows}, {"descriptor": describe(hog), "unit": True, "color": "gray"})
    phi = representation("bovw", descriptor=hog, vocabulary=grey)
    with pytest.raises(InvrepError, match=r"words of grey photos, but these images are colour.*data\.color=gray"):
        phi(torch.rand(1, 3, 64, 64))
    assert phi(torch.rand(1, 1, 64, 64))[0].sum() == pytest.approx(1)


def test_words_fit_descriptors_at_any_distance():
    dense, sparse = (representation("textons", descriptor={"step": step}) for step in (1, 4))
    images = torch.rand(1, 1, 64, 72)
    assert dense(images)[0].shape == sparse(images)[0].shape
    assert not torch.equal(dense(images)[0], sparse(images)[0])


def test_a_descriptor_without_positions_and_one_of_another_size_are_refused():
    words = Vocabulary("words", {"centers": torch.rand(4, 10)})
    dense = representation("module", target="torch.nn.Flatten", channels=1, layer="output")
    with pytest.raises(InvrepError, match="has no positions: its code is one vector of 64 values"):
        representation("bovw", descriptor=dense, vocabulary=words)(torch.rand(1, 1, 8, 8))
    with pytest.raises(InvrepError, match="descriptors of 10 values, but dsift gives 128"):
        representation("bovw", vocabulary=words)(torch.rand(1, 1, 40, 40))
    with pytest.raises(InvrepError, match="at least 16×16 pixels"):
        representation("bovw", vocabulary=small("words"))(torch.rand(1, 1, 12, 40))


@pytest.mark.parametrize("rep", KINDS)
def test_a_descent_lowers_the_error(photo, rep):
    phi = representation(rep, vocabulary=small(KINDS[rep]))
    assert (
        phi.color == "gray" and phi.jitter == 1 and TotalVariation(weight="auto").automatic(phi, per_pixel=False) == 5
    )
    found = invrep.invert(photo.mean(0, keepdim=True)[None, :, :40, :40], phi, steps=30, progress=False)
    errors = [float(terms["error"]) for _, terms in found.history]
    assert errors[-1] < 0.6 * errors[0]
