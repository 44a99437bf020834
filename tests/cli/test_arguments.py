"""The command line as it is typed by people and by W&B's agents, and what is printed where an encoding lacks Greek."""

import io
import re
import sys

import pytest
import yaml
from helpers.paths import ROOT
from PIL import Image
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from invrep.cli.arguments import arguments
from invrep.errors import InvrepError

DOCS = ROOT / "docs"


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        ("--prior.tv.weight=5", "prior.tv.weight=5"),
        ("--rep=hog", "rep=hog"),
        ("--data.limit=None", "data.limit=null"),
        ("data.limit=None", "data.limit=None"),
        ("--prior.tv={'weight': 5, \"beta\": None}", "prior.tv={weight: 5, beta: null}"),
        ("--layer=['a', 'b:c']", "layer=['a', 'b:c']"),
        ("--+optim.options.momentum=.9", "+optim.options.momentum=.9"),
        ("--cfg=job", "--cfg=job"),
        ("--config-dir=mine", "--config-dir=mine"),
        ("--config-n=mine", "--config-n=mine"),  # argparse takes a flag's beginning
        ("--multirun", "--multirun"),
        ("-q", "quiet=true"),
        ("--quiet", "quiet=true"),
        ("-m", "-m"),
        ("mine", "mine"),
        ("seed=2024_01_05", "seed=2024_01_05"),
        ("data.path=2024_01_05", "data.path='2024_01_05'"),
        ("--data.path=2024", "data.path='2024'"),
        ("data.path=1e5,a.png,7", "data.path='1e5',a.png,'7'"),
        ("data.path=true", "data.path='true'"),
        ("+data.root=3.50", "+data.root='3.50'"),
        ("output=0", "output='0'"),
        ("rep.weights=null", "rep.weights=null"),
        ("data.path=2024-01-05", "data.path=2024-01-05"),
        ("data.path='2024_01_05'", "data.path='2024_01_05'"),
        ("data.path='a,5,b'", "data.path='a,5,b'"),
        ("data.path=a=5.png", "data.path=a=5.png"),  # Hydra has a word about it
    ],
)
def test_what_hydra_is_given(typed, given):
    assert arguments([typed]) == [given]


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        ("a=1 -m b=2", "a=1 b=2 -m"),
        ("-m a=1 --config-dir mine b=2", "a=1 b=2 -m --config-dir mine"),
        ("a=1 -cd x=y b=2 -c job", "a=1 b=2 -cd x=y -c job"),
        ("a=1 --config-dir=mine b=2", "a=1 b=2 --config-dir=mine"),
        ("--info a=1", "a=1 --info"),
        ("a=1 -i all b=2", "a=1 b=2 -i all"),
        ("--cfg", "--cfg"),
        ("--a=1 -m ~b", "a=1 ~b -m"),
        ("a=1 -q -m b=2", "a=1 quiet=true b=2 -m"),
    ],
)
def test_overrides_on_both_sides_of_flags(typed, given):
    assert arguments(typed.split()) == given.split()


def test_a_sweep_with_its_flag_between_overrides(job):
    outcome = job("rep=hog", "-m", "seed=0,1", "dry_run=true")
    assert outcome.status == 0 and outcome.out.count("4 passes each") == 2, outcome.err


def test_quiet_leaves_the_results_and_a_sweep_counts_its_jobs(job):
    said = job("-m", "seed=0,1").out.splitlines()
    assert [line for line in said if line.startswith("job ")] == ["job 1 of 2: seed=0", said_of_second(said)]
    quiet = job("-m", "seed=2,3", "-q").out.splitlines()
    assert [line.split()[0] for line in quiet if line] == ["error", "picture:"] * 2 + ["page"]


def said_of_second(lines: list[str]) -> str:
    """The line of the second job, whose time left is that of the first."""
    (line,) = [line for line in lines if re.fullmatch(r"job 2 of 2: seed=1, about \d+ s left", line)]
    return line


def test_dashes_that_mean_nothing():
    with pytest.raises(InvrepError, match="--dry_run is no flag of Hydra; a setting is given as dry_run=VALUE"):
        arguments(["--dry_run"])


def test_a_folder_named_by_a_date(job, tmp_path):
    for name in ("2024_01_05", "2024"):
        (tmp_path / name).mkdir()
        Image.effect_noise((24, 16), 40).save(tmp_path / name / "a.png")
    outcome = job("data.path=2024_01_05")
    assert outcome.status == 0, outcome.err
    assert "path: '2024_01_05'" in (outcome.folder / "config.yaml").read_text()
    swept = job("-m", "data.path=2024_01_05,2024", "optim.steps=1", "output=swept")
    assert swept.status == 0 and len(list((tmp_path / "swept").glob("hog-*"))) == 2, swept.err


SWEEPS = [
    yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", (DOCS / "wandb.md").read_text(), re.M | re.S)
]


@pytest.mark.parametrize("sweep", SWEEPS, ids=["args", "args_no_hyphens"])
def test_an_agent_of_wandb_runs_the_sweeps_of_the_docs(job, tmp_path, sweep):
    """W&B's own code makes the command, from the first value of each parameter."""
    first = {k: v.get("value", v.get("values", [v.get("max")])[0]) for k, v in sweep["parameters"].items()}
    macros = create_sweep_command_args({"args": {key: {"value": value} for key, value in first.items()}})
    command = create_sweep_command(sweep.get("command", ["${env}", "python", "${program}", "${args}"]))
    (macro,) = [word[2:-1] for word in command if word.startswith("${args")]
    Image.effect_noise((24, 16), 40).save(tmp_path / "photo.jpg")
    outcome = job(*macros[macro], "dry_run=true")
    passes = first.get("optim.steps", 4)
    assert outcome.status == 0 and f"{passes} passes" in outcome.out and "hogb" in outcome.out, outcome.err
    assert ("without their dashes: rep=hogb " in outcome.err) == (macro == "args")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_log_in_another_encoding(job, tmp_path, monkeypatch, encoding):
    Image.effect_noise((24, 16), 40).save(tmp_path / "猫.png")
    log = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(log, encoding, write_through=True))
        assert job("data.path='猫.png'", "restarts=2").status == 0
        assert job("rep=alexnet", "layer=list").status == 0
    said = log.getvalue().decode(encoding)
    assert "error ????0?" in said and "features.0" in said and "picture: out/hog-" in said


@pytest.mark.parametrize("program", ["invrep", "python train.py"])
@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("rep=vgg1", "rep=vgg16 rep=vgg19"),
        ("prior=ijcv16 prior.tv.w", "prior.tv.weight="),
        ("-m exp", "experiment="),
        ("experiment=cvpr15/tab", "experiment=cvpr15/table1 experiment=cvpr15/table3"),
        ("+hydra/launcher=job", "+hydra/launcher=joblib"),
        ("--prior.tv.w", ""),  # nothing, and no error into the line being typed
    ],
)
def test_tab_completes_groups_and_keys(job, monkeypatch, program, typed, found):
    monkeypatch.setenv("COMP_LINE", f"{program} {typed}")
    outcome = job("-sc", "query=bash", defaults=False)
    assert outcome.out.split() == found.split() and not outcome.err


def test_tab_completion_is_for_the_program_that_was_started(job):
    assert job("-sc", "install=bash", defaults=False).out.split()[-1] == "python"  # train.py


def test_help_fits_one_screen(job):
    lines = job("--help", defaults=False).out.splitlines()
    assert len(lines) <= 45 and max(map(len, lines)) <= 120
