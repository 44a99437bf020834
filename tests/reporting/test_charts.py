"""Plots, tables and the chooser of the page: what they hold, and how they behave in a browser."""

import csv
import re
import xml.etree.ElementTree as ET

import pytest
from helpers.pages import IMAGES, made_job
from PIL import Image
from playwright.sync_api import expect

from invrep.cli.report import report
from invrep.reporting.comparison import find_runs
from invrep.reporting.groups import apart, grouped
from invrep.reporting.page.job_data import Axes


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Folders of three kinds of jobs, as a month of work leaves them."""
    place = tmp_path_factory.mktemp("month")
    for layer, weight in (("relu1", 5), ("relu2", 5), ("fc6", 5), ("fc6", 1)):
        made_job(place, layer, IMAGES[:2], weight=weight, rep="deep")
    for weight in (1, 5):
        made_job(place, "relu1", IMAGES[2:], weight=weight, rep="flat")
    for rep in ("flat", "other"):
        made_job(place, "relu2", IMAGES[2:3], rep=rep, prior="cvpr15", restarts=1)
    return place


def test_mixed_jobs_are_grouped_by_what_they_share(mixed):
    groups = {group.title: group for group in grouped(find_runs([mixed]))}
    assert set(groups) == {"deep by layer and λ_V", "flat relu1 by λ_V", "relu2 by representation"}
    deep = groups["deep by layer and λ_V"]
    by_layer = {(run.point["layer"], run.point["prior.tv.weight"]): k for k, run in enumerate(deep.runs)}
    numbers = apart(deep.runs, list(deep.swept))
    at = {point: numbers[k] for point, k in by_layer.items()}
    # along layer three of one weight are joined, along λ two of one layer
    assert at["relu1", 5][0] == at["relu2", 5][0] == at["fc6", 5][0] != at["fc6", 1][0]
    assert at["fc6", 1][1] == at["fc6", 5][1] != at["relu1", 5][1]
    few = [run for run in find_runs([mixed]) if run.used["rep"] == "deep"]
    assert [group.title for group in grouped(few)] == ["deep by layer and λ_V"]


def test_a_page_of_many_pictures_has_fewer_points():
    passes = [*range(81), *range(82, 302, 4)]
    every, few = Axes(10), Axes(10_000)
    assert every.curve(passes, [1.0] * len(passes)) == (0, [1.0] * len(passes)) and every.passes == [passes]
    number, values = few.curve(passes, [float("nan"), *([0.123456] * (len(passes) - 1))])
    assert few.curve(passes, [1.0] * len(passes))[0] == number == 0 and few.curve([0, 4], [1.0, 2.0])[0] == 1
    kept = few.passes[0]
    assert kept[:11] == list(range(11)) and kept[-1] == passes[-1] and 30 < len(kept) < 60
    assert values[:2] == [None, 0.1235] and len(values) == len(kept)


def test_values_at_the_pointer_and_by_keys(opened):
    tab = opened()
    plot = tab.locator("#by-pass .plot")
    plot.scroll_into_view_if_needed()
    box = plot.locator("svg").bounding_box()
    tab.mouse.move(box["x"] + box["width"] - 30, box["y"] + box["height"] / 2)
    reading = plot.locator(".reading")
    expect(reading.locator("b")).to_have_text("pass 40")
    # means of four photos of two restarts, the highest first
    expect(reading.locator(".colour")).to_have_text(["relu3 10.5 %", "relu2 7.88 %", "relu1 5.25 %"])
    tab.mouse.move(5, 5)
    expect(reading).to_be_hidden()
    plot.focus()
    tab.keyboard.press("ArrowRight")
    expect(reading.locator("b")).to_have_text("pass 0")
    by_key = tab.locator("#by-key .plot")
    by_key.focus()
    tab.keyboard.press("End")
    # mean of .04, .08, .12 and .16 times 1.05, and its interval by t with three degrees of freedom
    expect(by_key.locator(".reading .colour")).to_have_text(re.compile(r"10\.5 % \(1\.87 % to 19\.1 %\)"))
    expect(tab.locator("#by-key .note")).to_contain_text("Student’s t")
    tab.locator("#by-spread .plot").focus()
    tab.keyboard.press("Home")
    expect(tab.locator("#by-spread .reading .colour")).to_contain_text("0.215")
    tab.locator("#spread").select_option("spread_code")
    expect(tab.locator("#by-spread figcaption .name")).to_have_text("Code spread against layer")


def test_figures_are_downloaded(opened):
    tab = opened()
    files = tab.locator("#by-pass .files button")
    with tab.expect_download() as svg:
        files.nth(0).click()
    assert svg.value.suggested_filename == "net-by-layer-Error-against-pass.svg"
    text = svg.value.path().read_text("utf-8")
    root = ET.fromstring(text)
    assert {"relu1", "relu2", "relu3", "pass"} <= {element.text for element in root.iter() if element.text}
    assert "var(" not in text and "class=" not in text and "oklch" not in text and "currentColor" not in text
    with tab.expect_download() as png:
        files.nth(1).click()
    with Image.open(png.value.path()) as image:
        width, height = (int(float(side)) for side in root.attrib["viewBox"].split()[2:])
        assert image.size == (3 * width, 3 * height) and image.getpixel((0, 0))[:3] == (255, 255, 255)
        assert len(image.convert("RGB").resize((300, 200)).getcolors(60_000)) > 20  # lines, text and legend


def test_the_table_is_filtered_and_downloaded_as_shown(opened):
    tab = opened()
    rows = tab.locator(".means tbody tr:visible")
    expect(rows).to_have_count(4)
    expect(tab.locator(".means")).to_contain_text("100 %, try 80 passes")
    tab.locator(".means th button", has_text="n").first.click()
    tab.locator("#rows-with").fill("RELU 99")
    expect(rows).to_have_count(1)
    expect(tab.locator("#rows-count")).to_have_text("1 of 4 jobs")
    tab.locator("#rows-with").fill("relu")
    tab.locator(".means th button", has_text="error").first.click()
    with tab.expect_download() as file:
        tab.locator("#as-csv").click()
    text = file.value.path().read_bytes().decode()
    assert file.value.suggested_filename == "net-by-layer-means.csv"
    lines = list(csv.DictReader(text.splitlines()))
    assert [line["layer"] for line in lines] == ["relu1", "relu2", "relu3"]
    assert float(lines[0]["error"]) == pytest.approx(0.0525) and float(lines[0]["error_std"]) > 0
    with tab.expect_download() as file:
        tab.locator("#as-latex").click()
    text = file.value.path().read_text("ascii")
    assert text.count("relu") == 3 and "fc9" not in text and r"\bottomrule" in text and r"\pm" in text


def test_a_picture_that_still_falls_says_so(opened):
    tab = opened()
    expect(tab.locator(".cell .falling")).to_have_count(4)
    tab.locator('.cell[data-at="0 2"]').click()
    expect(tab.locator("#curve .note")).to_contain_text("try optim.steps=80")
    plot = tab.locator("#curve .plot")
    plot.focus()
    tab.keyboard.press("End")
    expect(plot.locator(".reading b")).to_have_text("pass 40")
    expect(tab.locator("#closer-title")).to_contain_text("relu3")  # the keys of a plot lead to no neighbour


def test_a_page_of_mixed_jobs_begins_with_a_chooser(browser, mixed):
    report([str(mixed)])
    tab = browser.new_page(viewport={"width": 1200, "height": 800})
    wrong = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.goto((mixed / "report.html").as_uri())
    links = tab.locator("#chooser a")
    expect(links).to_have_count(3)
    expect(tab.locator("#chooser [aria-current]")).to_have_count(1)
    title = "flat relu1 by λ_V"
    links.filter(has_text=title).click()
    expect(tab.locator("h1")).to_have_text(title)
    expect(tab.locator("#grid .row .owner .name")).to_have_text(sorted(IMAGES[2:]))
    expect(tab.locator(".means tbody tr:visible")).to_have_count(2)
    chosen = tab.url
    tab.locator(".cell").first.click()
    expect(tab.locator("#closer[open]")).to_have_count(1)
    tab.keyboard.press("Escape")
    expect(tab.locator("#closer[open]")).to_have_count(0)
    expect(tab).to_have_url(chosen)  # the browser goes back a moment after the view has closed
    tab.reload()
    expect(tab.locator("h1")).to_have_text(title)
    tab.go_back()
    expect(tab.locator("h1")).not_to_have_text(title)
    tab.goto(tab.url.split("#")[0] + "#group=deep+by+layer+and+λ_V")
    expect(tab.locator("h1")).to_have_text("deep by layer and λ_V")
    expect(tab.locator("#by-key .line")).to_have_count(2)
    tab.close()
    assert wrong == []
