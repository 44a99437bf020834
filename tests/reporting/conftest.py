"""The page of a sweep, and a browser that opens it."""

import shutil

import pytest
from helpers.pages import IMAGES, LAYERS, made_sweep
from playwright.sync_api import expect, sync_playwright

from invrep.cli.report import report

PATIENCE = 60_000  # milliseconds; the machine may be busy
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    """The page of three layers, of which a fourth failed."""
    sweep = made_sweep(tmp_path_factory.mktemp("out"), LAYERS, IMAGES)
    report([str(sweep)])
    return sweep / "report.html"


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, page):
    """Open the page, in a window like that of the arguments; nothing may be complained of or fetched."""
    wrong, contexts = [], []

    def run(path=page, **window):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **window})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda request: request.url.startswith("data:") or wrong.append(request.url))
        tab.goto(path.as_uri())
        tab.wait_for_selector(".cell img[src]")
        return tab

    yield run
    for context in contexts:
        context.close()
    assert [message for message in wrong if not message.endswith("report.html")] == []
