"""The site is built without a warning; its commands and Python blocks, README's and the help's run, in miniature.

A command keeps its words; only what it stands on is small: photos, random weights, two passes. Where that is still too
dear (sweeps, many devices, most networks) the parts are built and the plan is made: dry_run=true.
"""

import contextlib
import importlib
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tarfile
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from helpers.paths import ROOT
from hydra import compose, initialize_config_dir
from hydra.types import RunMode
from markdown_it import MarkdownIt
from omegaconf import DictConfig, OmegaConf
from PIL import Image

import invrep
from invrep.cli.certify import certify
from invrep.cli.compare import compare
from invrep.cli.help import help_text
from invrep.cli.report import report
from invrep.cli.sentences import one_sentence
from invrep.data.code_files import save_code
from invrep.presets import FOLDER
from invrep.representations.vocabularies.vocabulary import SHIPPED

SITE = runpy.run_path(str(ROOT / "docs" / "conf.py"))
GALLERY = runpy.run_path(str(ROOT / "docs" / "gallery.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PROGRAMS = ("make", "python", "pip", "pytest", "sbatch", "source", "export", "eval", "pre-commit")
SRUN = {"ntasks", "ntasks-per-node", "nodes", "gpus-per-node", "cpus-per-task", "time", "requeue", "open-mode"}
ONE_SIZE = ("vit", "swin", "dinov2", "clip", "siglip", "timm")  # networks that take no small images
PLUGINS = ("launcher", "hparams")  # groups that need plugins of Hydra; test_launch.py runs them where they are
QUICK = ("hog", "hogb", "dsift", "alexnet", "module", "colours")


class Block(NamedTuple):
    """A block of code, or a span of it in a line."""

    page: str
    kind: str  # bash, python, yaml, inline
    text: str
    caption: str | None = None


def _blocks(path: Path) -> Iterator[Block]:
    text = path.read_text().replace("<!-- experiments -->", SITE["experiments_as_markdown"]())
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "code_block":
            yield Block(path.name, "bash", token.content)
        elif token.type == "fence":
            kind = token.info.removeprefix("{code-block}").strip()
            if kind.startswith("{"):
                continue
            caption = re.match(r":caption: (.+)\n\n?", token.content)
            yield Block(
                path.name, kind, token.content[caption.end() :] if caption else token.content, caption and caption[1]
            )
        elif token.type == "inline":
            yield from (Block(path.name, "inline", t.content) for t in token.children if t.type == "code_inline")


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
SITE_PAGES = PAGES[1:-1]
BLOCKS = [block for page in PAGES for block in _blocks(page)]
EXAMPLES = re.findall(r"^  (invrep.*?)(?:  |$)", help_text().partition("examples:")[2], re.MULTILINE)
BLOCKS.append(Block("invrep --help", "bash", "\n".join(EXAMPLES)))
FLAGS = [["--help"], ["baselines"], ["--version"], ["--cfg", "job"], ["-sc", "install=bash"], ["-sc", "install=fish"]]


def _lines(kind: str) -> list[tuple[str, str]]:
    """Return page and line of every command, once."""
    found = {}
    for block in BLOCKS:
        if block.kind == "bash" or (
            block.kind == "inline" and re.match(r"(python|invrep|make|pytest|pip) ", block.text)
        ):
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    found.setdefault(shlex.join(words), block.page)
    return [(page, line) for line, page in found.items() if _kind(line) == kind]


def _kind(line: str) -> str:
    words = shlex.split(line)
    if words[:2] == ["invrep", "compare"]:
        return "compare" if len(words) > 2 else "flag"
    if words[:2] in (["invrep", "report"], ["invrep", "certify"]):
        return words[1]
    if words[:2] == ["invrep", "vocabulary"]:
        return "vocabulary" if len(words) > 3 else "flag"
    if words[0] == "invrep" and words[1:] in FLAGS:
        return "flag"
    return "job" if {"train.py", "invrep"} & set(words) and words[0] not in ("pip", "mypy") else "other"


# --- the site --------------------------------------------------------------------------------------------------------


def test_the_site_is_built_without_a_warning_and_asks_for_nothing_from_elsewhere(tmp_path):
    from sphinx.application import Sphinx

    said = io.StringIO()
    docs = ROOT / "docs"
    app = Sphinx(docs, docs, tmp_path / "site", tmp_path / "trees", "html", status=None, warning=said)
    app.build()
    assert not said.getvalue() and app.statuscode == 0
    pages = {page.name: page.read_text() for page in (tmp_path / "site").glob("*.html")}
    assert {f"{page.stem}.html" for page in SITE_PAGES} <= pages.keys()
    for name, html in pages.items():
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*?src=\"([^\"]+)\"|<link[^>]*?href=\"([^\"]+)\"", html)
        assert not [url for pair in loaded for url in pair if "//" in url], name
        for link in re.findall(r"<a[^>]*?href=\"([^\"]+)\"", html):
            place, _, anchor = link.partition("#")
            if "//" not in link:
                assert (tmp_path / "site" / place).is_file() or not place, f"{name}: {link}"
                assert f'id="{anchor}"' in pages.get(place or name, f'id="{anchor}"') or not anchor, f"{name}: {link}"
    for rule in (tmp_path / "site" / "_static").rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(https?:)?//", rule.read_text()), rule
    for name in ("Representation", "TotalVariation", "Match", "Descent", "Results"):
        assert f'.{name}"' in pages["api.html"], name


def test_every_experiment_stands_on_the_site_with_its_description():
    listed = dict(SITE["experiments"]())
    assert bool(listed) == (FOLDER / "experiment").is_dir()
    for name, description in listed.items():
        assert len(description) > 20, f"conf/experiment/{name}.yaml has no comment that says what it is"


@pytest.mark.parametrize(
    ("page", "path"),
    dict.fromkeys(
        (block.page, path)
        for block in BLOCKS
        if block.kind == "inline"
        for path in re.findall(r"^((?:benchmarks|tests|invrep|conf)/[\w/]*(?:\.\w+)?)", block.text)
        if not re.search("[A-Z]{4}", path)  # NAME stands for any
    ),
)
def test_the_script_of_a_figure_exists(page, path):
    assert (ROOT / path).exists(), f"{page}: {path}"


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md"])
def test_every_row_of_the_measured_figures_names_its_script(page):
    rows = (ROOT / page).read_text().partition("<!-- measured -->")[2].partition("<!-- end")[0].splitlines()[3:]
    assert rows and all(re.search(r"\| `(benchmarks|tests)/[\w/]+\.py`", row) for row in rows if row)


def test_every_picture_is_captioned_by_the_command_that_makes_it():
    """Those of docs/papers/ and docs/all-priors/ stand in sections with their commands."""
    texts = [page.read_text() for page in PAGES]
    found = [path for text in texts for path in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)]
    shown = [path for path in found if "papers/" not in path and "all-priors/" not in path]
    assert [Path(path).stem for path in shown] == [n for text in texts for n, _ in GALLERY["CAPTIONED"].findall(text)]
    pictures = {file.stem: file.stat().st_size for file in GALLERY["PICTURES"].glob("*.jpg")}
    assert pictures.keys() == GALLERY["commands"]().keys()
    assert max(pictures.values()) <= GALLERY["MOST"] and sum(pictures.values()) <= 3_000_000


def test_the_gallery_finds_the_picture_of_a_command(job, place):
    outcome = job("data.path=photo.jpg", "optim.steps=1")
    found = [Path(path) for path in GALLERY["MADE"].findall(outcome.out)]
    assert found and found[-1].suffix == ".png" and found[-1].is_file()


# --- commands --------------------------------------------------------------------------------------------------------


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in config:
        yield f"{prefix}{name}"
        child = config._get_node(name)
        if OmegaConf.is_dict(child) and not child._is_none() and not child._is_missing():
            yield from _keys(child, f"{prefix}{name}.")


@pytest.fixture(scope="module")
def known() -> tuple[set[str], dict[str, set[str]]]:
    """All config keys of all presets, and the presets of each group."""
    groups: dict[str, set[str]] = {}
    for path in FOLDER.rglob("*.yaml"):
        if path.parent != FOLDER:
            place = path.relative_to(FOLDER).with_suffix("")
            group = "experiment" if place.parts[0] == "experiment" else place.parent.as_posix()
            groups.setdefault(group, set()).add(place.relative_to(group).as_posix())
    keys = set(groups)
    with initialize_config_dir(str(FOLDER.resolve()), version_base="1.3"):
        for group, names in groups.items():
            for name in names if group not in PLUGINS else ():
                if not name.startswith("base/"):
                    keys |= set(_keys(compose("config", [f"{group}='{name}'"])))
    return keys, groups


@pytest.mark.parametrize(
    ("page", "text"),
    dict.fromkeys(
        (b.page, b.text) for b in BLOCKS if b.kind == "inline" and "=" in b.text and not re.search(r"\(| -sc ", b.text)
    ),
)
def test_settings_named_in_a_sentence_exist(known, page, text):
    keys, groups = known
    for word in shlex.split(text):
        key, equals, value = word.lstrip("+").partition("=")
        if not equals or not re.fullmatch(r"[a-z_.]+(/[a-z_]+)?", key):
            continue
        if "._target_" in key or key.startswith(("hydra.", "prior.x")):
            continue
        assert key in keys, f"{page}: there is no key {key}"
        if key in groups and re.fullmatch(r"[\w/]+", value):
            assert value in groups[key] | {"null"}, f"{page}: there is no {key}={value}"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder that holds what the commands name, small."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a.jpg", "photos/b.jpg", "photo.jpg", "imagenet/val/a.jpg", "datasets/bird/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((80, 64), 60).convert("RGB").save(tmp_path / name)
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "val-0.tar", "w") as tar:
        tar.add(tmp_path / "photo.jpg", "a.jpg")
    shutil.copy(SHIPPED / "fisher.safetensors", tmp_path / "words.safetensors")
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "models.py").write_text(
        textwrap.dedent(
            """
            from torch import nn

            def encoder():
                module = nn.Sequential()
                module.add_module("stem", nn.Conv2d(3, 4, 3))
                return module
            """
        )
    )
    for block in BLOCKS:
        if block.caption:
            (tmp_path / block.caption).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.caption).write_text(block.text)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mypackage", "nets", "colours", "mirror")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def _miniature(words: list[str], place: Path) -> list[str]:
    """Return the overrides of a command with what makes it small."""
    given = dict(word.lstrip("+").split("=", 1) for word in words if "=" in word and not word.startswith("-"))
    small = [*words]
    rep, layer = given.get("rep", "hog"), given.get("layer", "")
    network = "layer" in given and rep not in ("module",)
    weights = "rep.descriptor.weights=random" if "rep.descriptor" in given else "rep.weights=random"
    if layer == "list":
        return [*small, weights] if network else small
    if network:
        small += [weights]
    if rep not in QUICK or "trainer.devices" in given or "-m" in words:
        small += ["dry_run=true"]
    if given.get("data") == "none":
        small += ["data.size=[64,64]"]
    else:
        small += ["data.path=photo.jpg"] if "data.path" not in given else []
        small += ["data.resize=none"] if network and not rep.startswith(ONE_SIZE) else []
    if given.get("objective") == "code":
        phi = invrep.representation(rep, layer=layer, weights="random")
        for name in ("a", "b"):
            save_code(place / f"{name}.safetensors", [part[0] for part in phi(torch.rand(1, 3, 64, 64))], (64, 64))
    return [*small, *(["optim.steps=2"] if "optim.steps" not in given else [])]


@pytest.mark.parametrize(("page", "line"), _lines("job"))
def test_a_command_runs_in_miniature(job, place, page, line):
    words = shlex.split(line)
    at = next(k for k, word in enumerate(words) if word in ("train.py", "invrep"))
    before, program, words = words[:at], words[at], words[at + 1 :]
    if before[:1] == ["torchrun"]:
        from torch.distributed.run import get_args_parser

        given = get_args_parser().parse_args([*before[1:], program])
        assert given.nproc_per_node == "8" and given.module == (program == "invrep")
    else:
        if before[:1] == ["srun"]:
            options = {word.removeprefix("--").partition("=")[0] for word in before[1:] if word.startswith("--")}
            assert options <= SRUN
            before = [word for word in before[1:] if not word.startswith("--")]
        assert before in ([["python"]] if program == "train.py" else [[], ["python", "-m"]])
    if any(word in words for word in ("rep=timm", "rep=dinov2", "rep=clip", "rep=siglip")):
        pytest.importorskip("timm")
    if any(word.startswith("experiment=") for word in words):  # test_experiments.py runs all of them
        with initialize_config_dir(str(FOLDER.resolve()), version_base="1.3"):
            first = [word.partition(",")[0] for word in words if word != "-m"]
            assert compose("config", first, return_hydra_config=True).hydra.mode == RunMode.MULTIRUN
        return
    for word in [
        word for word in words if word.lstrip("+").startswith((*(f"{g}=" for g in PLUGINS), "hydra.launcher."))
    ]:
        words.remove(word)
        group, _, name = word.partition("=")
        assert group not in PLUGINS or (FOLDER / group / f"{name}.yaml").is_file(), f"{page}: {word}"
    outcome = job(*_miniature(words, place))
    assert outcome.status == 0, f"{page}: {line}\n{outcome.err[-1500:]}"


@pytest.mark.parametrize("line", [line for _, line in _lines("vocabulary")])
def test_a_vocabulary_is_fitted_in_miniature(job, place, line, monkeypatch):
    if "baseline=" in line:
        monkeypatch.setattr("invrep.fitting.paired_windows.ATOMS", 16)
        outcome = job(*shlex.split(line.replace("photos/", "bundled:chelsea"))[1:], defaults=False)
        assert outcome.status == 0, outcome.err
        return
    (place / "words.safetensors").unlink()
    network = ("rep.descriptor.weights=random", "data.resize=none", "rep.projection=8")
    small = network if "rep.descriptor.layer" in line else ()
    outcome = job(*shlex.split(line)[1:], *small, "rep.words=16", "data.limit=1", defaults=False)
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize("line", [line for _, line in _lines("job") if "--config-dir mine rep=alexnet" in line][:1])
def test_parts_of_ones_own_are_found_in_the_working_folder(place, line):
    """In a process of its own, whose path of modules is a reader's."""
    words = [str(ROOT / "train.py"), *shlex.split(line)[1:]]
    small = ("rep.weights=random", "data.resize=none", "optim.steps=1", "logger=none", "trainer.accelerator=cpu")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *words, *small], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0 and (place / "outputs").is_dir(), done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "invrep rep=vgg16 layers=relu5",
        "invrep rep=vgg61 layer=relu5",
        "python train.py prior.tv.wieght=5",
        "invrep -m rep=alexnet layer=relu1,relou2",
    ],
)
def test_a_typo_in_a_command_would_be_seen(job, place, line):
    with pytest.raises(AssertionError, match="error: "):
        test_a_command_runs_in_miniature(job, place, "a page", line)


@pytest.mark.parametrize(("page", "line"), _lines("flag"))
def test_a_flag_answers(job, page, line):
    outcome = job(*shlex.split(line)[1:], defaults=False)
    assert outcome.status == 0 and outcome.out and not outcome.err, f"{page}: {line}"


@pytest.mark.parametrize(("page", "line"), _lines("other"))
def test_other_commands_exist(page, line):
    words = shlex.split(line)
    assert words[0] in PROGRAMS, f"{page}: {line}"
    if words[0] == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets), f"{page}: {line}"
    elif words[0] == "pip":
        extras = re.findall(r"invrep\[([\w,]+)\]", line)
        assert extras or words in (["pip", "install", "."], ["pip", "wheel", "."])
        assert set(",".join(extras).split(",")) - {""} <= PROJECT["optional-dependencies"].keys()
    elif words[0] == "pytest":
        assert words[1:] == ["-m", "slow"] or (ROOT / words[1]).is_file()
    elif words[0] == "eval":
        assert words[1:] in (["$(invrep -sc install=bash)"], ["$(python train.py -sc install=bash)"])
    elif words[0] in ("sbatch", "python"):
        assert words[1] in {block.caption for block in BLOCKS}
    else:
        assert line in (
            "source .venv/bin/activate",
            "pre-commit install",
            "export 'OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK'",
        )


def test_batch_scripts_have_slurms_options():
    scripts = [block.text for block in BLOCKS if block.kind == "bash" and block.text.startswith("#!")]
    options = {option for text in scripts for line in re.findall("#SBATCH (.*)", text) for option in line.split()}
    assert scripts and {option.removeprefix("--").partition("=")[0] for option in options} <= SRUN


@pytest.mark.parametrize(("page", "line"), _lines("report"))
def test_the_report_is_made(job, place, page, line):
    words = shlex.split(line)[2:]
    job("data.path=photo.jpg", "optim.steps=1", "output=outputs")
    (made,) = (place / "outputs").glob("hog-*")
    folders = [word for k, word in enumerate(words) if word.startswith("outputs/") and words[k - 1] != "-o"]
    for folder in folders:
        if not (place / folder).exists():
            (place / folder).parent.mkdir(parents=True, exist_ok=True)
            (place / folder).symlink_to(made, target_is_directory=True)
    with contextlib.redirect_stdout(io.StringIO()):
        report(words)
    named = words[words.index("-o") + 1] if "-o" in words else f"{folders[0]}/report.html"
    assert (place / named).stat().st_size > 1000


@pytest.mark.parametrize(("page", "line"), _lines("certify"))
def test_certificates_are_added(job, place, page, line):
    words = shlex.split(line)[2:]
    if "--pictures" in words:
        shutil.copytree("photos", words[words.index("--pictures") + 1])
        folder = Path("outputs")
        certify(words)
    else:
        job("rep=hogb", "data.path=photo.jpg", "optim.steps=1", "output=outputs")
        (made,) = (place / "outputs").glob("hogb-*")
        folder = made.rename(words[0])
        certify(words)
    assert list(folder.rglob("certificate.csv")), f"{page}: {line}"


@pytest.mark.parametrize(("page", "line"), _lines("compare"))
def test_jobs_are_compared(job, place, page, line):
    words, printed = shlex.split(line)[2:], io.StringIO()
    for number, word in enumerate(words[:2]):
        job("data.path=photo.jpg", f"optim.steps={number + 1}", "output=made")
        (made,) = (place / "made").glob("hog-*")
        (place / word).parent.mkdir(parents=True, exist_ok=True)
        made.rename(place / word)
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), contextlib.suppress(SystemExit):
        compare(words)
    # one and two passes have unequal errors
    expected = "agree within 10 % on no photo" if "--at-equal-error" in words else "permutation test"
    assert expected in " ".join(printed.getvalue().split()), f"{page}: {line}"


# --- Python ----------------------------------------------------------------------------------------------------------

PYTHON = [block for block in BLOCKS if block.kind == "python" and block.caption is None]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.page}-{block.text.splitlines()[-1][:40]}")
def test_a_python_block_runs(place, monkeypatch, block):
    monkeypatch.syspath_prepend(str(place))  # as of a notebook or a script in that folder
    representation, invert = invrep.representation, invrep.invert
    monkeypatch.setattr(
        invrep,
        "representation",
        lambda name, **o: representation(name, **({"weights": "random"} if "layer" in o else {}) | o),
    )
    monkeypatch.setattr(invrep, "invert", lambda *a, **o: invert(*a, **({"steps": 2} | o)))
    with one_sentence(), contextlib.redirect_stdout(io.StringIO()):
        exec(compile(block.text, block.page, "exec"), {"images": torch.rand(1, 3, 48, 64)})
