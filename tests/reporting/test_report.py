"""The page of finished jobs: what it compares, what it holds, and how it behaves in a browser."""

import base64
import io
import json
import re
import shutil

import pytest
from helpers.pages import IMAGES, LAYERS, error_of, made_job, made_sweep
from PIL import Image
from playwright.sync_api import expect

import invrep.reporting.page.page
from invrep.cli.report import report
from invrep.reporting.comparison import compare, find_runs


def data_of(path):
    """Return what the page's script reads, with the full-size pictures of all blocks, and the whole page."""
    html = path.read_text()
    found = dict(re.findall(r'<script type="application/json" id="([a-z0-9-]+)">(.*?)</script>', html, re.S))
    data = json.loads(found["data"])
    data["full"] = [picture for name in found if name.startswith("full-") for picture in json.loads(found[name])]
    return data, html


def test_what_was_swept_is_what_differs(tmp_path):
    for layer, weight in (("relu2", 5), ("relu1", 5), ("relu2", 0.5), ("relu1", 0.5), ("fc6", 0.5)):
        made_job(tmp_path, layer, ["a.png"], weight=weight)
    runs = find_runs([tmp_path])
    # of a layer rep.layer follows; layers by receptive field, numbers by size
    assert compare(runs) == {"layer": ["relu1", "relu2", "fc6"], "prior.tv.weight": [0.5, 5]}
    assert {(run.point["layer"], run.point["prior.tv.weight"]) for run in runs} == {
        ("relu1", 0.5),
        ("relu1", 5),
        ("relu2", 0.5),
        ("relu2", 5),
        ("fc6", 0.5),
    }
    assert compare(runs[:1]) == {} and len(find_runs([tmp_path, tmp_path])) == 5
    copy = shutil.copytree(runs[0].results.folder, tmp_path / "other" / "net")
    assert list(compare([runs[0], *find_runs([copy])])) == ["folder"]


def test_the_page_holds_all_of_it(page):
    data, html = data_of(page)
    (key,) = data["groups"][0]["keys"]
    assert key["values"] == ["relu1", "relu2", "relu3", "fc9"]
    assert [photo["name"] for photo in data["photos"]] == sorted(IMAGES)
    job = next(job for job in data["jobs"] if key["values"][job["point"][0]] == "relu2")
    for number, photo in enumerate(data["photos"]):
        for restart in job["cells"][str(number)]["restarts"]:
            error = error_of("relu2", IMAGES.index(photo["name"]), restart["n"])
            assert restart["value"] == pytest.approx(error, rel=1e-3)
            assert restart["curve"] == pytest.approx([41 * error, 21 * error, error], rel=1e-3)
            with Image.open(io.BytesIO(base64.b64decode(data["full"][restart["picture"][1]].split(",")[1]))) as full:
                assert full.size == (64, 40)
    assert job["command"] == "python train.py layer=relu2 prior.tv.weight=5.0" and "tv:" in job["config"]
    failed = data["jobs"][-1]
    assert failed["status"] == "failed" and "fc9" in failed["message"] and failed["cells"] == {}
    assert re.search(r"<td class=\"number\" data-value=\"0\.0525\d*\">5\.[23] ± 2\.\d %</td>", html)
    # one file, and names that could be markup are text
    addresses = r"(src|href)=\"(?!data:|#)|https?://(?!www\.w3\.org|github\.com/timmywil/panzoom)"
    assert not re.search(addresses, html) and "<script>alert" not in html


def test_large_sweeps_are_linked_and_cut(tmp_path, monkeypatch):
    sweep = made_sweep(tmp_path, LAYERS, IMAGES)
    monkeypatch.setattr(invrep.reporting.page.page, "MOST_EMBEDDED", 0)
    monkeypatch.setattr(invrep.reporting.page.page, "MOST_PICTURES", 15)
    report([str(sweep), "-o", str(tmp_path / "pages" / "p.html")])
    data, html = data_of(tmp_path / "pages" / "p.html")
    assert len(data["photos"]) == 2 and "the first 2 photos" in html and "linked, not embedded" in html
    link = data["jobs"][0]["cells"]["0"]["restarts"][0]["picture"]
    assert re.fullmatch(r"\.\./net-relu3-5/reconstructions/[^#?<>\"' ]*\.0\.png", data["full"][link[1]])
    assert [len(run.rows) for run in find_runs([sweep])] == [8, 8, 8, 0]  # the table is of all
    assert html.count(">8</td>") == 3


@pytest.mark.parametrize("make", ["missing", "empty", "broken"])
def test_what_is_no_run_is_said(tmp_path, capsys, make):
    folder = tmp_path / "runs"
    if make != "missing":
        (folder / "jobs").mkdir(parents=True)
    if make == "broken":
        (folder / "jobs" / "000.yaml").write_text("- a: [")
    with pytest.raises(SystemExit) as error:
        report([str(folder)])
    said = capsys.readouterr().err
    assert error.value.code == 1 and said.startswith("error: ") and "runs" in said and "Traceback" not in said
    assert not (folder / "report.html").exists()


def test_a_sweep_ends_with_its_page_though_a_job_fails(job, photos):
    outcome = job("-m", "rep=hogb", "prior.tv.weight=5,-1,.5", f"data.path={photos}", "data.limit=2", "optim.steps=2")
    assert outcome.status == 1 and "page of the sweep" in outcome.out, outcome.err
    (path,) = outcome.output.glob("sweeps/*/report.html")
    data, _ = data_of(path)
    assert data["groups"][0]["keys"][0]["key"] == "prior.tv.weight" and data["groups"][0]["keys"][0]["values"] == [
        "-1",
        "0.5",
        "5",
    ]
    assert [job["status"] for job in data["jobs"]] == ["done", "failed", "done"]
    done = data["jobs"][0]
    assert (done["field"], done["stride"], done["start"]) == (34, 8, [-13, -13])
    assert "prior.tv.weight" in data["jobs"][1]["message"] and len(data["jobs"][2]["cells"]) == 2


def expect_photos(tab, names):
    """Wait until the photos in the grid are these, from above; rows are filled when they come into view."""
    expect(tab.locator("#grid .row")).to_have_count(len(names))
    expect(tab.locator("#grid .row .owner .name")).to_have_text(names)


def test_in_a_browser_sorted_and_filtered(opened):
    tab = opened()
    expect(tab.locator(".cell")).to_have_count(16)
    expect(tab.locator(".cell .failed")).to_have_count(4)
    expect_photos(tab, sorted(IMAGES))
    expect(tab.locator(".plots svg")).to_have_count(3)
    expect(tab.locator(".cell .error").first).to_have_text("4.00 %×2")  # the second photo
    tab.locator("#sort").select_option("down")
    expect_photos(tab, IMAGES[::-1])
    tab.locator("#grid .head button").first.click()
    expect_photos(tab, IMAGES)
    expect(tab.locator("[aria-sort=ascending]")).to_have_count(1)
    tab.locator("#filter summary").click()
    tab.locator("#low").fill("11")  # per cent: the third and fourth photo at relu2 and relu3
    expect_photos(tab, ["d.png", "sub/a.png"][::-1])
    expect(tab.locator(".cell.out")).to_have_count(3)
    expect(tab.locator("#count")).to_have_text("2 of 4 photos, 3 of 12 pictures")
    tab.locator("#search").fill("SUB")
    expect_photos(tab, ["sub/a.png"])
    tab.locator("button[type=reset]").click()
    expect_photos(tab, sorted(IMAGES))
    tab.get_by_label("fc9").uncheck()
    expect(tab.locator(".cell")).to_have_count(12)
    expect(tab.locator("#low")).to_have_value("")
    tab.locator(".means th button").nth(4).click()
    tab.locator(".means th button").nth(4).click()
    expect(tab.locator(".means tbody tr").first.locator("td").first).to_have_text("relu3")


def test_in_a_browser_a_row_that_is_gone_is_not_filled(opened):
    tab = opened()
    # as the browser may: rows come into view, and before the page hears of it a search has left one
    tab.evaluate("""() => {
        const gone = [...document.querySelectorAll("#grid .row")];
        const search = document.getElementById("search");
        search.value = "SUB";
        search.dispatchEvent(new Event("input"));
        gone.forEach((line) => { line.replaceChildren(); furnish(line); });
    }""")
    expect_photos(tab, ["sub/a.png"])


def test_in_a_browser_by_keyboard(opened):
    tab = opened()
    focused = tab.locator(":focus")
    tab.locator(".cell").first.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft"):
        tab.keyboard.press(key)
    expect(focused).to_have_attribute("data-at", "1 1")
    expect(focused).to_have_css("outline-style", "solid")
    tab.keyboard.press("Enter")
    title, dialog = tab.locator("#closer-title"), tab.locator("dialog")
    expect(dialog).to_have_attribute("open", "")
    expect(title).to_have_text(f"{sorted(IMAGES)[1]} · relu2")
    expect(dialog.locator(":focus")).to_have_count(1)
    assert tab.locator("#found img").first.evaluate("i => i.decode().then(() => i.naturalWidth)") == 64
    # of 40 rows from -4 in steps of 8 the box 51 high in the middle begins at -4
    expect(tab.locator("#original .field")).to_have_attribute("style", re.compile(r"top: -10%"))
    expect(tab.locator(".restarts button")).to_have_count(3)  # the start, and two restarts
    expect(tab.locator("#curve path.line")).to_have_count(3)
    tab.locator(".restarts button").nth(2).click()
    expect(tab.locator("#found figcaption")).to_contain_text("restart 1")
    expect(tab.locator("#command")).to_contain_text("layer=relu2")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowDown")
    expect(title).to_have_text(f"{sorted(IMAGES)[2]} · relu3")
    expect(tab.locator("#seen")).to_contain_text("the region 1x1@0x1 of the code")
    expect(tab.locator("#original .field")).to_have_count(2)
    style = "top: 10%; left: -12.5%; height: 50%; width: 100%;"
    expect(tab.locator("#original .field").first).to_have_attribute("style", style)
    expect(tab.locator("#after")).to_be_disabled()  # the layer that failed has no picture
    tab.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(focused).to_have_attribute("data-at", "2 2")


def test_in_a_browser_on_a_phone(opened):
    tab = opened(viewport={"width": 360, "height": 740}, has_touch=True)
    expect_photos(tab, sorted(IMAGES))
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    # two pictures side by side, each with the name of its column
    places = [one.bounding_box() for one in tab.locator("#grid .row").first.locator(".picture").all()[:3]]
    assert places[0]["y"] == places[1]["y"] < places[2]["y"] and places[0]["x"] == places[2]["x"]
    expect(tab.locator(".cell .column").nth(1)).to_have_text("relu2")
    expect(tab.locator(".cell .column").nth(1)).to_be_visible()
    tab.locator(".cell").first.tap()
    assert tab.locator("#closer").evaluate("d => d.scrollWidth <= d.clientWidth && d.clientWidth <= 360")


def test_in_a_browser_jobs_that_form_no_table_stand_side_by_side(opened, tmp_path):
    for layer, weight in (("conv1", 1), ("relu1", 2), ("relu2", 3), ("relu3", 4), ("fc6", 5), ("conv1", 5)):
        made_job(tmp_path, layer, IMAGES[:2], restarts=1, weight=weight)
    report([str(tmp_path)])
    tab = opened(tmp_path / "report.html")
    expect(tab.locator("#grid .row")).to_have_count(2)
    expect(tab.locator(".cell")).to_have_count(12)  # a table of 5 by 5 would have gaps
    tab.locator("#sort").select_option("down")
    expect(tab.locator(".cell .column").first).to_have_text("fc6, λ_V 5")
    tab.locator(".cell").first.focus()
    tab.keyboard.press("ArrowDown")
    expect(tab.locator(":focus")).to_have_attribute("data-at", "0 4")
