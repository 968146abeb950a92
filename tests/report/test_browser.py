"""The report in a real headless Chromium: sorting, slider, keyboard, console, network, narrow screens and paper."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from flipside.cli.review_sheet.grades import read_grades
from flipside.cli.review_sheet.sheet import KEY, PAGE, choose_cases, sheet_name, write_review
from flipside.core.params import read_params, value_at
from flipside.report.inputs import read_inputs
from flipside.report.params import ReportParams
from stages import report
from tests.report.report_fixture import build_project

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1280,800")
METHODS = {"coin": 0.8, "coin_aligned": 0.7, "singla": 0.6, "impact": 0.5, "rise": 0.4, "gradient": 0.35, "cam": 0.2,
           "score_cam": 0.3, "layer_cam": 0.25, "intensity": 0.45, "centre": 0.1, "random": 0.05}
PAPER = 1039  # CSS pixels across an A4 sheet in landscape, less the page's margins

pytestmark = pytest.mark.skipif(
    not (CHROMIUM.is_file() and DRIVER.is_file()),
    reason=f"{CHROMIUM} or {DRIVER} is missing: apt-get install chromium chromium-driver")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of twelve made-up methods with 70 metrics each, as a file: address."""
    root = tmp_path_factory.mktemp("project")
    build_project(root, np.random.default_rng(1).uniform(-1, 0.2, (12, 24, 24)), METHODS, ("coin", "singla"),
                  ("intensity", "centre", "random"))
    file = root / "reports/metrics.json"
    metrics = json.loads(file.read_text())
    for place, values in enumerate(metrics.values()):
        values["l1_extra_ci_low"], values["l1_extra_ci_high"] = 0.1, 0.2
        values |= {f"l1_extra{i or ''}": 0.1 * place + i for i in range(70 - len(values))}
    file.write_text(json.dumps(metrics))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, "argv", ["report"])
        report.main()
    return (root / "reports/report.html").as_uri()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(executable_path=str(DRIVER)))
    yield driver
    driver.quit()


def test_grades_of_a_review_sheet_are_saved_kept_and_counted(chromium, page, tmp_path):
    root = Path(urlparse(page).path).parents[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        inputs = read_inputs(ReportParams(**value_at(read_params(), "report")))
        key = choose_cases(inputs, ["coin"], 3, seed=1)
        write_review(inputs, key, PAGE, KEY)
    chromium.get((root / PAGE).as_uri())
    for question, number in (("healthy", 0), ("place", 1), ("artefacts", 2), ("lesion", 0)):
        chromium.find_elements(By.CSS_SELECTOR, f"[name='2-{question}']")[number].click()
    chromium.find_element(By.ID, "reader").send_keys("Ann B.")
    chromium.find_element(By.CSS_SELECTOR, "[data-case='2'] [data-question=remark]").send_keys('dark, "rim"')
    chromium.refresh()  # what was graded is still there
    assert chromium.find_element(By.ID, "progress").text == "1 of 3 graded"
    file = tmp_path / "grades.csv"
    file.write_text(chromium.execute_script("return gradesAsCsv()"), newline="")
    grades = read_grades([file], key)
    assert grades[["reader", "case", "healthy", "place", "artefacts", "lesion", "remark"]].to_numpy().tolist() == [
        ["Ann B.", 2, "yes", "partly", "many", "tissue", 'dark, "rim"']]
    chromium.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    chromium.find_element(By.ID, "save").click()
    saved = tmp_path / f"review_{sheet_name(key)}_Ann_B_.csv"
    WebDriverWait(chromium, 20).until(lambda _: saved.is_file())
    assert saved.read_bytes() == file.read_bytes()


@pytest.fixture
def browser(chromium, page):
    """The page freshly opened at 1280 x 800, with empty logs."""
    resize(chromium, 1280, 800)
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    chromium.get("about:blank")
    for log in ("browser", "performance"):
        chromium.get_log(log)
    chromium.get(page)
    return chromium


def resize(browser, width, height):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})


def order(browser):
    return [link.text for link in browser.find_elements(By.CSS_SELECTOR, ".ranked tbody th a")]


def head(browser, name):
    """The column's cell and button in the ranked table."""
    for cell in browser.find_elements(By.CSS_SELECTOR, ".ranked thead th"):
        if cell.text.replace("\n", " ").startswith(name):
            return cell, cell.find_element(By.TAG_NAME, "button")
    raise AssertionError(f"no column {name}")


def values(browser, column):
    """The column's numbers from top to bottom, None where a method has none."""
    return browser.execute_script("""
        const index = arguments[0].cellIndex;
        return [...document.querySelectorAll('.ranked tbody tr')].map(
          row => row.cells[index].dataset.value ? Number(row.cells[index].dataset.value) : null);""", column)


def complaints(browser):
    """What the console said and which addresses other than file: and data: were asked for."""
    said = [entry["message"] for entry in browser.get_log("browser")]
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return said, asked, [address for address in asked if not address.startswith(("file:", "data:"))]


def test_a_click_sorts_best_first_and_another_turns_round(browser):
    first = order(browser)
    cell, button = head(browser, "IoU label-free")
    assert cell.get_attribute("aria-sort") == "descending"
    assert values(browser, cell) == sorted(values(browser, cell), reverse=True)
    button.click()
    assert cell.get_attribute("aria-sort") == "ascending" and order(browser) == first[::-1]
    other, button = head(browser, "FP healthy")
    button.click()  # less is better
    assert other.get_attribute("aria-sort") == "ascending" and cell.get_attribute("aria-sort") is None
    assert values(browser, other) == sorted(values(browser, other)) and order(browser) != first
    assert "FP healthy" in browser.find_element(By.ID, "sorted").get_attribute("textContent")
    head(browser, "#")[1].click()
    assert order(browser) == first


def test_methods_without_a_number_come_last_either_way(browser):
    cell, button = head(browser, "flipped")
    for _ in range(2):
        button.click()
        assert set(order(browser)[:2]) == {"coin", "singla"} and values(browser, cell)[2:] == [None] * 10


def test_the_keyboard_alone_reaches_the_table_and_sorts_it(browser):
    def active():
        return browser.switch_to.active_element

    def press(key):
        webdriver.ActionChains(browser).send_keys(key).perform()

    press(Keys.TAB)
    assert active().text == "Skip to the ranking" and active().rect["y"] >= 0
    press(Keys.ENTER)
    assert active().get_attribute("id") == "main"
    before = order(browser)
    for _ in range(10):
        press(Keys.TAB)
        if active().tag_name == "button" and active().text.startswith("IoU label-free"):
            break
    button = active()
    cell = button.find_element(By.XPATH, "..")
    assert button.value_of_css_property("outline-style") == "solid" and cell.get_attribute("aria-sort") == "descending"
    for key, direction, expected in ((Keys.SPACE, "ascending", before[::-1]), (Keys.ENTER, "descending", before)):
        press(key)
        assert cell.get_attribute("aria-sort") == direction and order(browser) == expected
        assert active() == button


def test_the_slider_moves_by_keyboard_and_uncovers_the_counterfactual(browser):
    slider = browser.find_element(By.CSS_SELECTOR, "#method-coin .slider input")
    scan = browser.find_element(By.CSS_SELECTOR, "#method-coin .wipe img + img")

    def covered():
        """Share of the picture, from the left, where the scan gives way to the counterfactual."""
        return scan.value_of_css_property("clip-path")

    assert covered() == "inset(0px 0px 0px 50%)" and "share of the counterfactual" in slider.accessible_name
    slider.send_keys(Keys.ARROW_RIGHT)
    assert covered() == "inset(0px 0px 0px 51%)" and slider.get_attribute("aria-valuetext") == "51 % counterfactual"
    slider.send_keys(Keys.END)
    assert covered() == "inset(0px 0px 0px 100%)"
    slider.send_keys(Keys.HOME)
    assert covered() in ("inset(0px 0px 0px 0%)", "inset(0px)")
    told = browser.find_element(By.CSS_SELECTOR, "#method-coin .slider .ends").text.split()
    assert told == ["counterfactual", "scan", "0.100", "classifier", "0.900", "0.250", "judge", "0.800"]


def test_the_console_is_silent_and_nothing_leaves_the_file(browser, page):
    for button in browser.find_elements(By.CSS_SELECTOR, ".ranked button")[:3]:
        button.click()
    browser.find_element(By.CSS_SELECTOR, ".slider input").send_keys(Keys.END)
    for part in browser.find_elements(By.TAG_NAME, "summary"):
        part.click()
    said, asked, foreign = complaints(browser)
    assert said == [] and foreign == [] and page in asked


def test_the_check_above_sees_a_foreign_address_and_an_error(browser, tmp_path):
    file = tmp_path / "bad.html"
    file.write_text('<img src="http://127.0.0.1:9/seen.png"><script>missing()</script>')
    browser.get(file.as_uri())
    said, _, foreign = complaints(browser)
    assert "http://127.0.0.1:9/seen.png" in foreign and any("missing is not defined" in message for message in said)


def test_the_answer_is_on_the_first_screen(browser):
    for name in ("which", "sure", "fails"):
        section = browser.find_element(By.CSS_SELECTOR, f"section[aria-labelledby={name}]")
        assert section.rect["y"] + section.rect["height"] <= 800
    first, sure, fails = (browser.find_element(By.CSS_SELECTOR, f"section[aria-labelledby={name}]").text
                          for name in ("which", "sure", "fails"))
    best = next(name for name in order(browser) if name not in ("intensity", "centre", "random"))
    assert best in first and "patients" in sure and "of 6 lesion slices" in fails and "Worst on small lesions" in fails


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_never_scrolls_sideways_its_tables_do(browser, width):
    resize(browser, width, 844)
    browser.execute_script("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    page_width, tables = browser.execute_script("""
        return [document.documentElement.scrollWidth,
                [...document.querySelectorAll('.scroll')].map(box => [
                  box.scrollWidth, box.getBoundingClientRect().right, getComputedStyle(box).overflowX])]""")
    assert page_width <= width
    assert all(right <= width and overflow == "auto" for _, right, overflow in tables)
    if width < 600:
        assert any(inside > width for inside, _, _ in tables)


def test_the_head_and_the_first_column_of_all_metrics_stay_in_sight(browser):
    shifted = browser.execute_script("""
        document.querySelector('#metrics details').open = true;
        const box = document.querySelector('.tall');
        box.scrollTo(300, 900);
        const edge = box.getBoundingClientRect(), corner = box.querySelector('thead th').getBoundingClientRect(),
              name = box.querySelector('tbody:last-child th[scope=row]').getBoundingClientRect();
        return [box.scrollTop, corner.top - edge.top, corner.left - edge.left, name.left - edge.left];""")
    assert shifted[0] > 300 and max(abs(shift) for shift in shifted[1:]) <= 1.5


def test_on_paper_everything_is_open_and_nothing_is_cut_off(browser):
    closed = "return [...document.querySelectorAll('details')].filter(part => !part.open).length"
    assert browser.execute_script(closed) > 0
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script(closed) == 0
    resize(browser, PAPER, 720)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    controls = browser.find_elements(By.CSS_SELECTOR, "nav, input, .skip")
    assert controls and not any(control.is_displayed() for control in controls)
    cut_off = browser.execute_script("""
        return [...document.querySelectorAll('header *, main *')].filter(part => {
          const box = part.getBoundingClientRect(), style = getComputedStyle(part);
          return box.width && !part.closest('.hidden') && !part.matches('.id, svg') && (box.right > innerWidth + 1 ||
            (style.overflowX !== 'visible' && part.scrollWidth > part.clientWidth + 1) ||
            (style.overflowY !== 'visible' && part.scrollHeight > part.clientHeight + 1));
        }).map(part => part.tagName + ' ' + part.className + ' ' + part.textContent.slice(0, 40))""")
    assert cut_off == []
    browser.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script(closed) > 0
