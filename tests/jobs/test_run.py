"""Jobs from the command line, in this process."""

import csv
import json
import math
import shutil
import time

import pytest
import torch
from filelock import FileLock
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file, save_file

import invrep.jobs.completion
import invrep.jobs.run
import invrep.jobs.worker
import invrep.results.exports
from invrep.api import representation
from invrep.data.display import to_pil
from invrep.data.photo_reading import read
from invrep.jobs.identity import name_of
from invrep.results.store import Results


def table(folder) -> list[dict[str, str]]:
    """Return the rows of a job's metrics.csv."""
    return list(csv.DictReader((folder / "metrics.csv").open()))


def test_the_default_job_leaves_everything_on_disk(job):
    outcome = job("restarts=2")
    assert outcome.status == 0, outcome.err
    folder = outcome.folder
    assert folder.name.startswith("hog-")
    for name in ("grid.png", "reconstructions/chelsea.png.0.png", "reconstructions/chelsea.png.1.png"):
        with Image.open(folder / name) as picture:
            picture.load()
            assert min(picture.size) >= 300
    pixels = load_file(folder / "reconstructions.safetensors")
    assert {key: tuple(t.shape) for key, t in pixels.items()} == {
        "chelsea.png/0": (1, 300, 451),
        "chelsea.png/1": (1, 300, 451),
    }
    assert all(t.dtype == torch.float32 for t in pixels.values())
    rows = table(folder)
    assert [(row["image"], row["restart"], row["passes"]) for row in rows] == [
        ("chelsea.png", "0", "4"),
        ("chelsea.png", "1", "4"),
    ]
    columns = [
        "image",
        "restart",
        "error",
        "root_error",
        "pairwise_error",
        "psnr",
        "ssim",
        "energy",
        "data",
        "tv",
        "alpha",
    ]
    assert list(rows[0])[:11] == columns
    assert rows[0]["pairwise_error"] == ""
    assert outcome.value == pytest.approx(sum(float(row["error"]) for row in rows) / 2)
    curve = list(csv.DictReader((folder / "curves.csv").open()))
    assert [(p["restart"], p["pass"]) for p in curve] == [(r, p) for r in "01" for p in "01234"]
    config = OmegaConf.load(folder / "config.yaml")
    assert config.restarts == 2 and config.data.color == "gray" and config.rep.cell == 8
    assert torch.__version__.startswith(config.provenance.versions.torch)
    assert "restarts=2" in config.provenance.command
    assert "grid.png" in outcome.out and "error" in outcome.out and "1 image × 2 restarts, 451×300 px" in outcome.out


def test_the_table_is_of_the_pixels_on_disk(job, photos):
    """Errors computed anew from the files by Φ itself, and the pairwise normaliser by its definition."""
    folder = job(f"data.path={photos}", "rep=hogb", "data.color=rgb").folder
    pixels = load_file(folder / "reconstructions.safetensors")
    phi = representation("hogb")
    originals = {name: phi(read(photos / name)[None])[0] for name in ("a.png", "b.png", "sub/a.png")}
    pairs = [(a - b).square().sum() for a in originals.values() for b in originals.values()]
    rows = table(folder)
    assert [row["image"] for row in rows] == list(originals)
    for row in rows:
        distance = (phi(pixels[f"{row['image']}/0"][None])[0] - originals[row["image"]]).square().sum()
        error = float(distance / originals[row["image"]].square().sum())
        assert float(row["error"]) == pytest.approx(error, rel=1e-4)
        assert float(row["root_error"]) == pytest.approx(math.sqrt(error), rel=1e-4)
        assert float(row["pairwise_error"]) == pytest.approx(float(distance / torch.stack(pairs).mean()), rel=1e-4)
        assert float(row["energy"]) == pytest.approx(sum(float(row[k]) for k in ("data", "tv", "alpha")), rel=1e-4)


def test_finished_images_are_skipped_and_more_restarts_extend(job, photos):
    first = job(f"data.path={photos}")
    before = load_file(first.folder / "reconstructions.safetensors")
    stamp = (first.folder / "reconstructions.safetensors").stat().st_mtime_ns
    again = job(f"data.path={photos}")
    assert "3 of 3 are finished" in again.out and again.value == pytest.approx(first.value)
    assert (again.folder / "reconstructions.safetensors").stat().st_mtime_ns == stamp
    more = job(f"data.path={photos}", "restarts=2")
    assert "3 of 6 are finished" in more.out
    after = load_file(more.folder / "reconstructions.safetensors")
    assert len(after) == 6 and all(torch.equal(after[key], before[key]) for key in before)
    assert len(table(more.folder)) == 6
    assert Results(more.folder).table.settled()


def test_an_edited_photo_is_done_anew(job, photos):
    job(f"data.path={photos}")
    shutil.copy(photos / "b.png", photos / "a.png")
    outcome = job(f"data.path={photos}")
    assert "2 of 3 are finished" in outcome.out
    rows = {row["image"]: row for row in table(outcome.folder)}
    assert len(rows) == 3 and rows["a.png"]["content"] == rows["b.png"]["content"]


def test_a_broken_job_goes_on_to_what_an_unbroken_one_gives(job, photos, monkeypatch):
    whole = job(f"data.path={photos}", "data.batch_size=1", "output=whole")
    solve, calls = invrep.jobs.worker.solve, []

    def break_down(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return solve(*args, **kwargs)

    monkeypatch.setattr(invrep.jobs.worker, "solve", break_down)
    broken = job(f"data.path={photos}", "data.batch_size=1")
    assert broken.status == 130 and "what is finished is kept" in broken.err
    assert len(Results(broken.folder).rows()) == 1
    rest = job(f"data.path={photos}", "data.batch_size=1")
    assert "1 of 3 are finished" in rest.out and len(calls) == 4
    (reference,) = (whole.output.parent / "whole").iterdir()
    wanted, found = (load_file(f / "reconstructions.safetensors") for f in (reference, rest.folder))
    assert wanted.keys() == found.keys() and all(torch.equal(wanted[key], found[key]) for key in wanted)
    columns = [c for c in table(reference)[0] if c != "seconds"]
    assert [[row[c] for c in columns] for row in table(reference)] == [
        [row[c] for c in columns] for row in table(rest.folder)
    ]


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("", "was removed while this job was at work"),
        ("table", "a.png is missing, since its results were removed"),
        ("parts", "a.png.0.safetensors is missing; run the same command again"),
    ],
)
def test_results_that_are_removed_under_a_job_are_missed(job, photos, monkeypatch, gone, said):
    solve, calls = invrep.jobs.worker.solve, []

    def removed(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            (folder,) = (photos.parent / "out").iterdir()
            while not (folder / "parts/a.png.0.safetensors").exists() or len(Results(folder).rows()) < 2:
                time.sleep(0.01)  # another thread writes
            shutil.rmtree(folder / gone)
        return solve(*args, **kwargs)

    monkeypatch.setattr(invrep.jobs.worker, "solve", removed)
    outcome = job(f"data.path={photos}", "data.batch_size=1")
    assert outcome.status == 1 and "Traceback" not in outcome.err
    assert said in outcome.err
    outcome = job(f"data.path={photos}", "data.batch_size=1")
    assert outcome.status == 0 and len(Results(outcome.folder).pixels()) == 3, outcome.err


def test_the_picture_is_drawn_anew_unless_it_shows_what_there_is(job, photos, monkeypatch):
    """A job is extended and killed before its picture is drawn; the next run has nothing else to do."""
    folder = job(f"data.path={photos}", "data.limit=2").folder
    old = (folder / "grid.png").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(invrep.jobs.completion, "_draw", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert job(f"data.path={photos}").status == 130
    assert (folder / "grid.png").read_bytes() == old
    assert "3 of 3 are finished" in job(f"data.path={photos}").out
    new, stamp = (folder / "grid.png").read_bytes(), (folder / "grid.png").stat().st_mtime_ns
    assert new != old and job(f"data.path={photos}").status == 0
    assert (folder / "grid.png").stat().st_mtime_ns == stamp
    assert job(f"data.path={photos}", "output=unbroken").status == 0
    assert next(folder.parent.parent.glob("unbroken/*/grid.png")).read_bytes() == new
    job(f"data.path={photos}", "display=clip")
    assert (folder / "grid.png").read_bytes() != new


def test_a_bad_photo_among_others_is_reported_and_they_are_inverted(job, photos):
    (photos / "c.jpg").write_text("not a photo")
    (photos / "d.png").write_bytes((photos / "a.png").read_bytes()[:700])
    outcome = job(f"data.path={photos}")
    assert outcome.status == 1 and "Traceback" not in outcome.err
    assert "2 photos could not be inverted, all others are done" in outcome.err
    assert "c.jpg" in outcome.err and "d.png" in outcome.err
    assert [row["image"] for row in table(outcome.folder)] == ["a.png", "b.png", "sub/a.png"]
    assert (outcome.folder / "grid.png").exists()


def test_a_diverging_photo_is_reported_and_nothing_of_it_is_kept(job, photos):
    outcome = job(f"data.path={photos}", "optim=torch", "optim.name=SGD", "optim.lr=1e30", "optim.steps=8")
    assert outcome.status == 1 and "diverged" in outcome.err
    assert not (outcome.folder / "metrics.csv").exists() or table(outcome.folder) == []


def test_dry_run_prints_the_plan_and_writes_nothing(job, photos):
    outcome = job(f"data.path={photos}", "restarts=5", "dry_run=true")
    assert outcome.status == 0 and outcome.value is None
    assert "3 images × 5 restarts, 64×48 px" in outcome.out and "of up to 15 pre-images" in outcome.out
    assert not outcome.output.exists()


def test_a_layer_of_a_network_from_a_file_that_holds_no_more(job, photos, tmp_path):
    weights = tmp_path / "weights.safetensors"
    phi = representation("alexnet", layer="relu2", weights="random", seed=3)
    save_file({k: v for k, v in phi.module.state_dict().items() if v is not None}, weights)
    outcome = job("rep=alexnet", "layer=relu2", f"rep.weights={weights}", f"data.path={photos}", "data.resize=none")
    assert outcome.status == 0, outcome.err
    assert outcome.folder.name.startswith("alexnet-relu2-")
    pixels = load_file(outcome.folder / "reconstructions.safetensors")
    row = table(outcome.folder)[0]
    target = phi(read(photos / "a.png")[None])[0]
    error = (phi(pixels["a.png/0"][None])[0] - target).square().sum() / target.square().sum()
    assert float(row["error"]) == pytest.approx(float(error), rel=1e-4)
    other = job("rep=alexnet", "layer=relu4", f"rep.weights={weights}", f"data.path={photos}", "data.resize=none")
    assert other.status == 1 and "features.6" in other.err


def test_resize_model_and_squash(job, photos):
    for resize in ("model", "squash"):
        outcome = job(
            "rep=alexnet",
            "layer=conv1",
            "rep.weights=random",
            f"data.path={photos}",
            f"data.resize={resize}",
            "data.limit=1",
            "optim.steps=1",
            f"output={resize}",
        )
        (folder,) = (outcome.output.parent / resize).iterdir()
        assert load_file(folder / "reconstructions.safetensors")["a.png/0"].shape == (3, 224, 224)
        with Image.open(folder / "photos" / "a.png.png") as seen:
            wide = Image.open(photos / "a.png").resize((224, 224))
            gap = torch.tensor([x / 255 for x in seen.convert("L").resize((8, 8)).get_flattened_data()])
            gap = (
                (gap - torch.tensor([x / 255 for x in wide.convert("L").resize((8, 8)).get_flattened_data()]))
                .abs()
                .mean()
            )
        assert (float(gap) < 0.02) == (resize == "squash")


def test_a_sweep_shares_the_output_folder_and_each_job_has_its_own(job, photos):
    command = (
        "-m",
        "rep=alexnet",
        "layer=conv1,relu2",
        "rep.weights=random",
        f"data.path={photos}",
        "data.resize=none",
    )
    outcome = job(*command)
    assert outcome.status == 0, outcome.err
    folders = sorted(p.name.rsplit("-", 1)[0] for p in outcome.output.iterdir() if p.name != "sweeps")
    assert folders == ["alexnet-conv1", "alexnet-relu2"]
    single = job(*command[1:2], "layer=relu2", *command[3:])
    assert "3 of 3 are finished" in single.out


def test_a_failing_job_of_a_sweep_is_reported_and_the_rest_is_done(job, photos):
    outcome = job(
        "-m", "rep=alexnet", "layer=relu9,relu1", "rep.weights=random", f"data.path={photos}", "data.resize=none"
    )
    assert outcome.status == 1
    assert "no layer 'relu9'" in outcome.err + outcome.out and "Traceback" not in outcome.err
    assert outcome.folder.name.startswith("alexnet-relu1-") and len(table(outcome.folder)) == 3


def test_a_second_process_on_the_folder_says_so(job, photos):
    folder = job(f"data.path={photos}").folder
    with FileLock(folder / ".lock"):
        outcome = job(f"data.path={photos}", "restarts=2")
    assert outcome.status == 1 and "Another process is at work" in outcome.err


def test_what_changes_a_result_changes_the_folder(job, photos):
    base = [f"data.path={photos}", "data.limit=1", "dry_run=true"]
    names = set()
    for more in (
        (),
        ("seed=1",),
        ("prior.tv.weight=5",),
        ("rep.cell=4",),
        ("optim.lr=.1",),
        ("data.color=rgb",),
        ("dtype=float64",),
    ):
        out = job(*base, *more).out
        names.add(out.split("results in ")[1].split()[0])
    assert len(names) == 7
    same = set()
    for more in (
        (),
        ("prior.tv.beta=2",),
        ("prior.tv.beta=2.0",),
        ("objective.weight=1",),
        ("rep.cell=8",),
        ("optim.warm_up=5.0",),
        ("restarts=3.0", "seed=0.0", "images_every=1e2"),
        ("data.batch_size=2.0", "data.limit=1.0"),
        ("log_every=5",),
        ("display=clip",),
        ("trainer.accelerator=cpu",),
    ):
        same.add(job(*base, *more).out.split("results in ")[1].split()[0])
    assert len(same) == 1


@pytest.mark.parametrize(
    ("rep", "name"),
    [
        ({"name": "hog", "rep": {"cell": 8}}, "hog"),
        ({"name": "resnet50", "rep": {"model": "resnet50"}}, "resnet50"),
        ({"name": "mine", "rep": {"model": "densenet121"}}, "mine"),
        ({"name": "torchvision", "rep": {"model": "densenet121"}}, "densenet121"),
        (
            {"name": "timm", "rep": {"model": "hf-hub:timm/vit_small_patch14_dinov2.lvd142m"}},
            "vit_small_patch14_dinov2.lvd142m",
        ),
        ({"name": "module", "rep": {"target": "mypackage.models.encoder"}}, "encoder"),
        ({"name": "matconvnet", "rep": {"model": None, "weights": "nets/imagenet-vgg-f.mat"}}, "imagenet-vgg-f"),
    ],
)
def test_a_job_is_named_by_its_network(rep, name):
    assert name_of(OmegaConf.create(rep)) == name


def test_folder_and_picture_name_network_and_layer(job, photos):
    network = (
        "rep=torchvision",
        "rep.model=squeezenet1_1",
        "rep.weights=random",
        "layer=features.0",
        "data.resize=none",
    )
    outcome = job(*network, f"data.path={photos}", "data.limit=1", "optim.steps=1")
    assert outcome.folder.name.startswith("squeezenet1_1-features.0-")
    assert "squeezenet1_1 features.0: 1 image" in outcome.out
    assert OmegaConf.load(outcome.folder / "config.yaml").used.rep == "squeezenet1_1"


def test_names_that_are_hard_on_file_systems_stay_apart(job, photos):
    names = ["ü b.png", "new\nline.png", "100%.png", "A.png"]
    for name in names:
        shutil.copy(photos / "a.png", photos / name)
    outcome = job(f"data.path={photos}", "optim.steps=1")
    assert outcome.status == 0, outcome.err
    keys = load_file(outcome.folder / "reconstructions.safetensors").keys()
    assert keys == {f"{name}/0" for name in [*names, "a.png", "b.png", "sub/a.png"]}
    assert len(list((outcome.folder / "reconstructions").rglob("*.png"))) == 7
    assert Results(outcome.folder).picture("100%.png", 0).exists()


def test_display_is_what_the_png_shows(job, photos):
    for display in ("rescale", "clip"):
        outcome = job(f"data.path={photos}", "data.limit=1", f"display={display}", f"output={display}")
        (folder,) = (outcome.output.parent / display).iterdir()
        raw = load_file(folder / "reconstructions.safetensors")["a.png/0"][0]
        with Image.open(folder / "reconstructions" / "a.png.0.png") as picture:
            low, high = picture.convert("L").getextrema()
        if display == "rescale":
            assert (low, high) == (0, 255)
        else:
            assert (low, high) == tuple(round(255 * float(v.clamp(0, 1))) for v in (raw.min(), raw.max()))


@pytest.mark.parametrize(
    ("rep", "display"), [(["rep=hog"], "rescale"), (["rep=resnet18", "layer=relu", "rep.weights=random"], "clip")]
)
def test_photo_and_pre_image_are_displayed_alike(job, tmp_path, rep, display):
    grey = torch.linspace(0.25, 0.75, 40).expand(40, 40).contiguous()  # neither black nor white
    to_pil(grey[None]).save(tmp_path / "grey.png")
    outcome = job(*rep, f"data.path={tmp_path / 'grey.png'}", "data.resize=none", "optim.steps=1")
    assert outcome.status == 0, outcome.err
    assert OmegaConf.load(outcome.folder / "config.yaml").display == display
    with Image.open(Results(outcome.folder).photo("grey.png")) as photo:
        assert photo.convert("L").getextrema() == ((0, 255) if display == "rescale" else (64, 191))


def test_a_part_is_enough_to_go_on(job, photos, monkeypatch):
    """Killed between the last part and the compaction, the next run compacts without inverting anything."""
    with monkeypatch.context() as patch:
        patch.setattr(Results, "compact", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        job(f"data.path={photos}")
    outcome = job(f"data.path={photos}")
    assert "3 of 3 are finished" in outcome.out and len(table(outcome.folder)) == 3
    assert json.dumps(sorted(load_file(outcome.folder / "reconstructions.safetensors"))) == json.dumps(
        ["a.png/0", "b.png/0", "sub/a.png/0"]
    )


def test_reconstructions_are_one_file_unless_they_are_many(job, photos, monkeypatch):
    base = (f"data.path={photos}", "optim.steps=2")
    folder = job(*base).folder
    path = folder / "reconstructions.safetensors"
    whole = path.read_bytes()
    for damage in (path.unlink, lambda: path.write_bytes(whole[:-9]), lambda: path.write_bytes(b"")):
        damage()
        assert "3 of 3 are finished" in job(*base).out and path.read_bytes() == whole
    pixels = Results(folder).pixels()
    assert [f"{image}/{restart}" for image, restart in pixels] == list(load_file(path))
    # a photo done anew takes the old one's place
    shutil.copy(photos / "sub" / "a.png", photos / "b.png")
    assert "2 of 3 are finished" in job(*base).out
    again = Results(folder).pixels()
    assert [key for key in again if not torch.equal(again[key], pixels[key])] == [("b.png", 0)]
    assert torch.equal(load_file(path)["b.png/0"], again[("b.png", 0)])
    points = Results(folder).curve_points([("b.png", 0)])
    assert points[("b.png", 0)]["pass"] == [0, 1, 2]
    assert points[("b.png", 0)]["error"][-1] == pytest.approx(Results(folder).rows()[("b.png", 0)]["error"], rel=1e-4)
    monkeypatch.setattr(invrep.results.exports, "MOST_BYTES", 30_000)  # two of the pictures
    assert job(*base, "restarts=2").status == 0 and not path.exists()
    assert list(Results(folder).pixels()) == [(name, r) for name in ("a.png", "b.png", "sub/a.png") for r in (0, 1)]


ALEXNET = ("rep=alexnet", "rep.weights=random")


def test_a_class_or_channel_without_a_photo(job):
    outcome = job(*ALEXNET, "layer=output", "objective=maximise", "objective.channels=281", "data=none", "restarts=2")
    assert outcome.status == 0, outcome.err
    assert "1 image × 2 restarts, 224×224 px, RGB" in outcome.out and "activation: " in outcome.out
    folder = outcome.folder
    assert load_file(folder / "reconstructions.safetensors")["none/0"].shape == (3, 224, 224)
    rows = table(folder)
    assert list(rows[0])[:3] == ["image", "restart", "activation"]
    assert [row[name] for row in rows for name in ("error", "psnr", "ssim", "pairwise_error")] == [""] * 8
    curve = [float(p["activation"]) for p in csv.DictReader((folder / "curves.csv").open()) if p["restart"] == "0"]
    assert curve[-1] > curve[0] and curve[-1] == pytest.approx(float(rows[0]["activation"]), rel=1e-4)
    assert outcome.value == pytest.approx(sum(float(row["activation"]) for row in rows) / 2)
    assert not (folder / "photos").exists()
    with Image.open(folder / "grid.png") as grid:
        assert grid.width < 2 * grid.height  # two pictures and no photo beside them
    (spread,) = csv.DictReader((folder / "spread.csv").open())
    assert float(spread["spread_ssim"]) > 0 and spread["spread_code"] == ""
    again = job(*ALEXNET, "layer=output", "objective=maximise", "objective.channels=281", "data=none", "restarts=2")
    assert "2 of 2 are finished" in again.out and again.value == pytest.approx(outcome.value)


def test_a_unit_draws_what_it_sees(job):
    outcome = job(
        *ALEXNET,
        "layer=conv2",
        "objective=maximise",
        "objective.channels=3",
        "objective.region=1x1",
        "data=none",
        "data.size=[64,80]",
    )
    assert outcome.status == 0, outcome.err
    pixels = load_file(outcome.folder / "reconstructions.safetensors")["none/0"]
    unit = representation("alexnet", layer="conv2", weights="random")(pixels[None])[0][0, 3, 3, 4]
    assert pixels.shape == (3, 64, 80) and outcome.value == pytest.approx(float(unit), rel=1e-3)
    # a field of 51 pixels, a stride of 8, the first one from -18 on
    assert table(outcome.folder)[0]["boxes"] == "6 14 57 65"
    with Image.open(outcome.folder / "grid.png") as grid:
        assert grid.convert("RGB").tobytes().count(b"\xff\0\0" * 3) > 10


def test_a_caricature(job, photos):
    outcome = job(*ALEXNET, "layer=relu2", "objective=caricature", f"data.path={photos}", "data.resize=none")
    assert outcome.status == 0, outcome.err
    curve = list(csv.DictReader((outcome.folder / "curves.csv").open()))
    assert [float(p["activation"]) for p in curve if p["pass"] == "0"] == pytest.approx([1, 1, 1], rel=1e-5)
    rows = table(outcome.folder)
    assert all(float(row["activation"]) > 1 and float(row["psnr"]) > 15 and row["error"] == "" for row in rows)


def test_a_saved_code_is_as_good_as_its_photo(job, photos):
    base = (*ALEXNET, "layer=relu2", "data.resize=none")
    first = job(*base, f"data.path={photos}", "save_codes=true")
    codes = first.folder / "codes"
    assert sorted(p.relative_to(codes).as_posix() for p in codes.rglob("*.safetensors")) == [
        f"{name}.safetensors" for name in ("a.png", "b.png", "sub/a.png")
    ]
    path = codes / "a.png.safetensors"
    phi = representation("alexnet", layer="relu2", weights="random")
    torch.testing.assert_close(load_file(path)["part0"], phi(read(photos / "a.png")[None])[0][0])
    # the same id, hence the same start noise
    alone = job(*base, f"data.path={photos / 'a.png'}", "output=alone")
    given = (*base, f"data.path={photos / 'a.png'}", "objective=code", f"objective.path={path}", "output=given")
    other = job(*given)
    assert other.status == 0, other.err
    pixels = [
        load_file(next((other.output.parent / name).iterdir()) / "reconstructions.safetensors")["a.png/0"]
        for name in ("alone", "given")
    ]
    assert torch.equal(*pixels) and other.value == pytest.approx(alone.value, rel=1e-6)
    # a code with another content is another result, the same content elsewhere is not
    copy = shutil.copy(path, photos.parent / "copy.safetensors")
    assert "1 of 1 are finished" in job(*given[:-2], f"objective.path={copy}", "output=given").out
    shutil.copy(codes / "b.png.safetensors", copy)
    assert "finished" not in job(*given[:-2], f"objective.path={copy}", "output=given", "dry_run=true").out


def test_an_edited_code_without_a_photo(job, photos):
    codes = job("rep=hogb", f"data.path={photos}", "save_codes=true").folder / "codes"
    paths = f"[{codes / 'a.png.safetensors'},{codes / 'b.png.safetensors'}]"
    outcome = job(
        "rep=hogb",
        "data=none",
        "objective=code",
        f"objective.path={paths}",
        "objective.zero_channels=[0,9:27]",
        "restarts=2",
        "output=edited",
    )
    assert outcome.status == 0, outcome.err
    (folder,) = (outcome.output.parent / "edited").iterdir()
    target = (load_file(codes / "a.png.safetensors")["part0"] + load_file(codes / "b.png.safetensors")["part0"]) / 2
    target[[0, *range(9, 27)]] = 0
    code = representation("hogb")(load_file(folder / "reconstructions.safetensors")["none/1"][None])[0][0]
    row = table(folder)[1]
    assert float(row["error"]) == pytest.approx(float((code - target).square().sum() / target.square().sum()), rel=1e-4)
    assert row["psnr"] == "" and row["pairwise_error"] == ""
    (spread,) = csv.DictReader((folder / "spread.csv").open())
    assert float(spread["spread_code"]) > 0
