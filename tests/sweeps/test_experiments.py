"""Every experiment in miniature, and what becomes of jobs that fail."""

import csv
import statistics
from pathlib import Path

import pytest
from helpers.pdflatex import typeset
from helpers.vocabularies import small
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from PIL import Image

from invrep.presets import FOLDER, build
from invrep.reporting.layouts.latex import latex
from invrep.representations.vocabularies.vocabulary import save
from invrep.results.store import Results
from invrep.results.sweep_journal import swept

EXPERIMENTS = sorted(
    path.relative_to(FOLDER / "experiment").with_suffix("").as_posix()
    for path in (FOLDER / "experiment").rglob("*.yaml")
    if path.parent.name != "base"
)
# a benchmark's miniature is a result: more than a test needs
LESS = {"benchmark/small": ("rep=hog", "optim.steps=2", "data.limit=1")}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_in_miniature_and_is_laid_out(job, photos, name):
    where = () if name in ("gallery/classes", "ijcv16/classes", "ijcv16/filters") else (f"data.path={photos}",)
    outcome = job(
        f"experiment={name}", "quick=true", *where, *LESS.get(name, ()), "logger=none", "output=out", defaults=False
    )
    assert outcome.status == 0, outcome.err
    folder = outcome.output / "miniatures" / name
    jobs = swept(folder)
    assert jobs and {one.status for one in jobs} == {"done"}
    laid_out = [Path(line.removeprefix("laid out: ")) for line in outcome.out.splitlines() if "laid out" in line]
    assert laid_out
    boxes = [row["boxes"] for one in jobs for row in Results(one.folder).rows().values() if row.get("boxes")]
    assert bool(boxes) == (name in ("cvpr15/fig9", "ijcv16/neighbourhoods"))
    for path in laid_out:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
                assert not boxes or picture.convert("RGB").tobytes().count(b"\xff\0\0" * 3) > 10 * len(boxes)
                assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 5
        elif path.suffix == ".tex":
            assert typeset(path.read_text(encoding="ascii"), outcome.output) == ""
        elif path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF")
        elif path.suffix == ".csv":
            lines = list(csv.DictReader(path.open(encoding="utf-8")))
            # random weights tell no classes
            assert {"done"} <= {line["status"] for line in lines} <= {"done", "no value"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_layers_of_a_whole_sweep_exist(name):
    """The miniatures take a few of them only."""
    with initialize_config_dir(str(FOLDER.resolve()), version_base="1.3"):
        config = compose("config", [f"experiment={name}"], return_hydra_config=True)
    if "layer" not in config.rep:
        return
    asked = {config.layer}
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    for override in OverridesParser.create().parse_overrides(params):
        if override.is_sweep_override():
            for value in override.sweep_iterator():
                asked |= (
                    {value} if override.key_or_group == "layer" else {value["layer"]} if type(value) is dict else set()
                )
    config.rep.layer = "list"
    phi = build(config.rep)
    assert asked <= {path for path, _ in phi.module.named_modules()} | phi.aliases.keys()


def test_the_layers_of_every_network_of_the_full_benchmark_exist():
    with initialize_config_dir(str(FOLDER.resolve()), version_base="1.3"):
        config = compose("config", ["experiment=benchmark/full"])
        for name, layers in config.layers.items():
            rep = compose("config", [f"rep={name}", "layer=list"]).rep
            phi = build(rep)
            assert (
                len(layers) == 8 and {*layers} <= {path for path, _ in phi.module.named_modules()} | phi.aliases.keys()
            )


def _tables_and_figures(folder: Path) -> dict[str, bytes]:
    """Return what is laid out in a folder, but for the page, which says in what minute it was made."""
    return {path.name: path.read_bytes() for path in folder.glob("*.*") if path.suffix != ".html"}


@pytest.fixture
def sweep(job, photos):
    """HOG and HOGb with a cell that fits and one that does not, of a photo and of a file that is none."""
    (photos / "aa.jpg").write_text("not a photo")
    overrides = (
        "-m",
        "experiment=cvpr15/table1",
        "quick=true",
        "method=hog,hogb",
        "rep.cell=8,7",
        "layout.table.columns=[method,rep.cell]",
        "logger=none",
        "output=out",
    )

    def run(*more):
        return job(*overrides, f"data.path={photos}", *more, defaults=False)

    return run


def test_what_failed_is_marked_and_the_same_command_goes_on(sweep, photos):
    broken = sweep()
    folder = broken.output / "miniatures/cvpr15/table1"
    assert broken.status == 1 and "4 of 4 jobs failed" in broken.out
    jobs = swept(folder)
    assert [job.status for job in jobs] == ["failed"] * 4
    assert "aa.jpg" in jobs[0].message and "cell" in jobs[1].message and jobs[1].folder is None
    assert [(job.values["method"], job.values["rep.cell"]) for job in jobs] == [
        ("hog", 8), ("hog", 7), ("hogb", 8), ("hogb", 7)
    ]  # fmt: skip
    text = (folder / "table.md").read_text(encoding="utf-8")
    assert text.count("†") == 2 * 2 + 1 and "| failed |" in text and "HOGgle" in text

    (photos / "aa.jpg").unlink()
    mended = sweep("data.limit=3")
    assert mended.status == 1 and "1 of 3 are finished" in mended.out and "2 of 4 jobs failed" in mended.out
    jobs = swept(folder)
    assert [job.status for job in jobs] == ["done", "failed", "done", "failed"]
    lines = list(csv.DictReader((folder / "table.csv").open(encoding="utf-8")))
    cell = next(line for line in lines if line["value"] == "root_error" and line["method"] == "hogb")
    roots = [100 * row["root_error"] for row in Results(jobs[2].folder).rows().values()]
    assert float(cell["mean"]) == pytest.approx(statistics.mean(roots), rel=1e-5)
    assert float(cell["std"]) == pytest.approx(statistics.stdev(roots), rel=1e-5)
    assert (cell["n"], cell["status"]) == ("3", "done")
    shown = f"{statistics.mean(roots):.1f} ± {statistics.stdev(roots):.1f}"
    tex = (folder / "table.tex").read_text(encoding="ascii")
    assert "Miniature" in tex and "Miniature" in (folder / "table.md").read_text(encoding="utf-8")
    assert shown in (folder / "table.md").read_text(encoding="utf-8") and latex(shown) in tex

    before = _tables_and_figures(folder)
    again = sweep("data.limit=3")
    assert "3 of 3 are finished" in again.out and _tables_and_figures(folder) == before


def test_a_layer_that_a_network_lacks_is_said_in_its_cell_and_the_rest_is_done(job, photos):
    network = ("rep=alexnet", "rep.weights=random", "data.resize=none", "optim.steps=1", "prior.tv.weight=5")
    base = ("experiment=cvpr15/table3", *network, "logger=none", "output=out", f"data.path={photos}", "data.limit=1")
    outcome = job(*base, "layer=relu1,norm1,relu2", defaults=False)
    folder = outcome.output / "experiments/cvpr15/table3"
    assert outcome.status == 1 and "alexnet has no layer 'norm1'" in outcome.err and "1 of 3 jobs" in outcome.err
    (line,) = [line for line in (folder / "table.md").read_text().splitlines() if "its root" in line]
    cells = [cell.strip() for cell in line.split("|")[2:5]]
    assert cells[1] == "no such layer" and all(float(cells[k]) > 0 for k in (0, 2))
    # of a network that lacks the experiment's own first layer too
    other = job(*base, "rep=resnet18", "layer=layer1,norm1", defaults=False)
    assert other.status == 1 and "1 of 2 jobs" in other.err and "no such layer" in (folder / "table.tex").read_text()


def test_the_command_line_has_the_last_word(job, photos):
    given = (
        "prior=natural",
        "optim=adam",
        "optim.name=NAdam",
        "optim.steps=3",
        "prior.tv.weight=7",
        f"data.path={photos}",
    )
    outcome = job("experiment=cvpr15/fig4", "quick=true", *given, "logger=none", "output=out", defaults=False)
    (only,) = swept(outcome.output / "miniatures/cvpr15/fig4")
    config = OmegaConf.load(Results(only.folder).config)
    assert (config.prior.tv.weight, config.optim.name, config.optim.steps, config.prior.sigma) == (
        7,
        "NAdam",
        3,
        "auto",
    )


def test_a_miniature_and_a_run_that_cannot_begin_leave_the_real_figure_alone(job, photos):
    real = ("experiment=cvpr15/fig4", "logger=none", "output=out", "prior.tv.weight=5")
    folder = job(*real, f"data.path={photos}", "optim.steps=1", defaults=False).output / "experiments/cvpr15/fig4"
    before = _tables_and_figures(folder)
    small = job(*real, f"data.path={photos}", "quick=true", defaults=False).output / "miniatures/cvpr15/fig4"
    failed = job(*real, "data.path=nowhere", defaults=False)
    assert failed.status == 1 and "laid out" not in failed.out
    assert _tables_and_figures(folder) == before

    def reddish(path: Path) -> int:
        with Image.open(path) as picture:
            return sum(r > g + 60 for r, g, _ in zip(*[iter(picture.convert("RGB").tobytes())] * 3, strict=True))

    assert reddish(small / "figure.png") > reddish(folder / "figure.png") + 1000


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("experiment=cvpr15/fig6",), "imagenet-caffe-ref.mat"),
        (("experiment=ijcv16/classes",), "imagenet-vgg-verydeep-16.mat"),
        (("experiment=cvpr15/fig3", "data.path=nowhere"), "data.path=nowhere"),
        (("experiment=cvpr15/fig3", "quick=yes please"), "quick=yes please"),
        (("experiment=cvpr15/fig33",), "cvpr15/fig3"),
    ],
)
def test_what_no_job_can_do_without_is_said_once(job, overrides, said):
    outcome = job(*overrides, "logger=none", "output=out", defaults=False)
    assert outcome.status == 1 and said in outcome.err and outcome.err.count("\n") == 1
    assert not outcome.output.exists()


def test_a_sweep_of_some_vocabularies_is_that_sweep_and_no_earlier_one(job, photos, tmp_path):
    for words in (12, 16):
        save(small("words", words), tmp_path / f"bovw-{words}.safetensors")
    usual = ("experiment=beyond/vocabularies", f"vocabularies={tmp_path}", "rep=bovw", f"data.path={photos}")
    fewer = ("data.limit=1", "restarts=1", "optim.steps=2", "logger=none", "output=out")
    for words in ("12,16", "16"):
        found = job(*usual, *fewer, f"words={words}", defaults=False)
        assert not found.status and "Warning" not in found.err
    (table,) = found.output.rglob("errors.md")
    assert "16 words" in table.read_text() and "12 words" not in table.read_text()
