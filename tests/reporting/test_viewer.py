"""One picture opened in a browser: its views, zoom, keys and links, on a screen, on a phone and for screen readers."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from helpers.pages import IMAGES
from playwright.sync_api import expect

SECOND = sorted(IMAGES)[1]


def open_one(tab, row=1, column=1):
    """Open the pre-image of a photo at a layer."""
    tab.locator(f'.cell[data-at="{row} {column}"]').click()
    expect(tab.locator("#closer")).to_have_attribute("open", "")


def drag(tab, start, end):
    """Press the mouse at a place, move it to another, and let it go."""
    tab.mouse.move(*start)
    tab.mouse.down()
    tab.mouse.move(*end, steps=4)
    tab.mouse.up()


def transforms(tab):
    """Return scale and shift of photo and pre-image, as the browser draws them."""
    tab.evaluate("() => new Promise((done) => setTimeout(() => requestAnimationFrame(done), 300))")
    return tab.locator(".stage .layer").evaluate_all("all => all.map(e => getComputedStyle(e).transform)")


def test_slider_and_difference(opened):
    tab = opened()
    open_one(tab)
    photo, found = tab.locator("#original .frame"), tab.locator("#found .frame")
    one, other = photo.bounding_box(), found.bounding_box()
    assert one["y"] == other["y"] and one["width"] == other["width"] and one["x"] + one["width"] < other["x"]
    tab.keyboard.press("s")
    one = photo.bounding_box()
    assert one == found.bounding_box()
    # a drag on the picture moves the slider, and so do the keys of the slider itself
    middle = one["y"] + one["height"] / 2
    drag(tab, (one["x"] + 0.8 * one["width"], middle), (one["x"] + 0.25 * one["width"], middle))
    expect(tab.locator("#split")).to_have_value(re.compile(r"2[45](\.\d)?"))
    assert re.search(r"inset\(0px 0px 0px 2[45]", found.evaluate("e => getComputedStyle(e).clipPath"))
    tab.locator("#split").press("End")
    expect(tab.locator("#split")).to_have_value("100")
    # photo and pre-image differ by up to a fifth, which is scaled, and the scale is named
    tab.keyboard.press("d")
    caption = re.compile(r"difference of photo and restart 0, ×\s4: white is 25 % of the range")
    expect(tab.locator("#found figcaption")).to_have_text(caption)
    assert tab.locator("#found .layer").evaluate("e => getComputedStyle(e).filter") == "brightness(4)"
    tab.keyboard.press("d")
    tab.keyboard.press("n")
    expect(tab.locator("#found figcaption")).to_have_text("start noise, restart 0: error 123 %")
    expect(tab.locator(".restarts [aria-pressed=true]")).to_have_text("pass 0")
    expect(tab).to_have_url(re.compile("layer=relu2&start=&slider=100$"))
    tab.keyboard.press("r")
    expect(tab.locator(".restarts [aria-pressed=true]")).to_have_text("3.30 %")


def test_zoom_and_pan_in_step(opened):
    tab = opened()
    open_one(tab)
    frame = tab.locator("#found .frame").bounding_box()
    at = (frame["x"] + 0.75 * frame["width"], frame["y"] + 0.75 * frame["height"])
    tab.mouse.move(*at)
    for _ in range(3):
        tab.mouse.wheel(0, -100)
    photo, found = transforms(tab)
    scale, _, _, _, x, y = map(float, re.findall(r"-?[\d.]+", found))
    assert photo == found and scale > 1.5
    # what lay under the pointer lies there still
    assert (x, y) == pytest.approx([-(scale - 1) * frame[side] / 4 for side in ("width", "height")], abs=1.5)
    drag(tab, at, (at[0] - 60, at[1] - 20))
    moved, same = transforms(tab)
    assert moved == same != photo
    tab.keyboard.press("0")
    assert [re.sub(r"-0(?=[,)])", "0", one) for one in transforms(tab)] == ["matrix(1, 0, 0, 1, 0, 0)"] * 2


def test_links_and_the_way_back(opened):
    tab = opened()
    plain = tab.url
    open_one(tab)
    tab.keyboard.press("ArrowDown")
    for key in "rsd+":
        tab.keyboard.press(key)
    expect(tab.locator("#closer-title")).to_have_text(f"{sorted(IMAGES)[2]} · relu2")
    expect(tab).to_have_url(re.compile(r"layer=relu2&restart=1&slider=50&difference=&zoom="))
    seen = transforms(tab)
    other = tab.context.new_page()
    other.goto(tab.url)  # a link opens what was seen, in a window of the same size
    expect(other.locator("#closer-title")).to_have_text(f"{sorted(IMAGES)[2]} · relu2")
    expect(other.locator(".restarts button").nth(2)).to_have_attribute("aria-pressed", "true")
    expect(other.locator("#split")).to_be_visible()
    expect(other.locator("#found figcaption")).to_contain_text("difference of photo and restart 1")
    assert transforms(other) == seen != ["none", "none"]
    other.keyboard.press("Escape")
    expect(other.locator("#closer")).not_to_be_visible()
    expect(other).to_have_url(plain)
    tab.go_back()  # a step inside the view is none in the browser's history
    expect(tab.locator("#closer")).not_to_be_visible()
    expect(tab).to_have_url(plain)
    tab.go_forward()
    expect(tab.locator("#closer")).to_be_visible()
    tab.locator("#close").click()
    expect(tab).to_have_url(plain)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_screen_readers_keyboard_and_contrast(opened, scheme, width):
    tab = opened(color_scheme=scheme, viewport={"width": width, "height": 844})
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}

    def check():
        found = Axe().run(tab, options=rules)
        assert found.violations_count == 0, found.generate_report()
        assert tab.evaluate("document.documentElement.scrollWidth") <= width

    tab.locator("#filter summary").click()
    check()
    tab.keyboard.press("Escape")
    open_one(tab)
    tab.keyboard.press("s")
    tab.keyboard.press("?")
    expect(tab.locator("#keys")).to_be_visible()
    check()
    assert tab.locator("#closer").evaluate("d => d.scrollWidth <= d.clientWidth")
    tab.keyboard.press("Escape")
    expect(tab.locator("#keys")).not_to_be_visible()
    expect(tab.locator("#closer")).to_be_visible()
