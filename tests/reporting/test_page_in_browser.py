"""The report in a real browser: quiet, offline, readable in both themes, on a phone and without a mouse."""

import pytest
from support.browser import browser
from support.pages import FIGURES, whole_study
from support.synthetic_limits import made
from support.synthetic_results import CHOSEN, Made, Run, outcome_of

from qsgd_ray.analysis.study_analysis import analyse
from qsgd_ray.config import Map
from qsgd_ray.config.trial import map_trials
from qsgd_ray.limits.page import section
from qsgd_ray.reporting.page import _SECTIONS, render_page

pytestmark = pytest.mark.slow

THEMES = ("light", "dark")
# WCAG 2: relative luminance of every text's colour and of the first opaque background behind it.
CONTRASTS = """
(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  document.querySelectorAll("details").forEach((node) => (node.open = true));
  const contrasts = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; (text = walker.nextNode()); ) {
    const node = text.parentElement;
    // Numbers on a map's cells have a halo of their own.
    if (node.matches(".bartext")) continue;
    if (!text.data.trim() || ["SCRIPT", "STYLE"].includes(node.tagName) || !node.getClientRects().length) continue;
    const style = getComputedStyle(node), inPlot = node instanceof SVGElement;
    const [a, b] = [light(parse(inPlot ? style.fill : style.color)), light(behind(node))];
    contrasts.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), text.data.trim().slice(0, 40)]);
  }
  return contrasts;
})()
"""
NAMELESS = """
[...document.querySelectorAll("figure, [role=region], [role=img], nav, button, section, main h2")].filter((node) => {
  const by = node.getAttribute("aria-labelledby");
  const name = by ? document.getElementById(by)?.textContent : node.getAttribute("aria-label") || node.textContent;
  return !name?.trim();
}).map((node) => node.outerHTML.slice(0, 80))
"""
TOO_WIDE = """
[...document.querySelectorAll("body *")].filter((node) => node.getBoundingClientRect().right > innerWidth + 1
  && !node.closest(".scroll, pre, .plot, .skip")).map((node) => node.outerHTML.slice(0, 80))
"""
REACHABLE = "[...document.querySelectorAll('figure, .scroll, summary, nav a')].filter(n => n.checkVisibility()).length"
DESCRIBED = """
[...document.querySelectorAll("figure")].every((figure) =>
  document.getElementById(figure.getAttribute("aria-describedby")).tagName === "FIGCAPTION")
"""
FOCUSED = (
    "(node => node.id || node.className || node.getAttribute('aria-label') || node.tagName)(document.activeElement)"
)


def full_study() -> Made:
    """With everything that rows can give a page: a map and the paper's claims, too."""
    design = Map(
        arm="gain",
        axes={"perturbation.lambda_": (0.5, 5.0), "perturbation.n_qubits": (2, 4)},
        seeds=(301, 302),
        epochs=4,
    )
    study = whole_study(map=design, claims={"C1": "gain", "C6": "wild"})
    points = {arm.name: {path: CHOSEN[path] for path in arm.spaces()} for arm in study.study.arms}
    mapped = [(trial, outcome_of(trial, Run(0.9))) for trial in map_trials(study.study, points)]
    return Made(study.study, [*study.trials, *mapped])


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    limits = made(tmp_path_factory.mktemp("limits"), scatter=0.02)
    scaling = section(limits, "../scaling_limits/limits.html")
    path = tmp_path_factory.mktemp("study") / "report.html"
    path.write_text(render_page(analyse(full_study().tables()), scaling))
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize("theme", THEMES)
def test_the_page_draws_every_figure_without_a_complaint_or_a_request(page, report, theme):
    page.messages.clear()
    page.requests.clear()
    page.open(report, theme=theme)
    assert page.evaluate("document.querySelectorAll('.plot .main-svg').length") >= len(FIGURES)
    assert page.messages == []
    assert {address.split(":")[0] for address in page.requests} <= {"file", "data", "blob"}
    assert page.requests.count(report.as_uri()) == 1 == len([a for a in page.requests if a.startswith("file")])


@pytest.mark.parametrize("width", [375, 768, 1280])
def test_no_part_of_the_page_is_wider_than_it(page, report, width):
    page.open(report, width=width, height=800)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.querySelectorAll('details').forEach((node) => (node.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate("document.querySelector('.plot svg').getBoundingClientRect().width") <= width


@pytest.mark.parametrize("toggled", [False, True])
@pytest.mark.parametrize("theme", THEMES)
def test_every_text_stands_out_from_what_is_behind_it(page, report, theme, toggled):
    page.open(report, theme=theme)
    if toggled:
        page.evaluate("document.getElementById('theme').click()")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 200
    assert [text for text in contrasts if text[0] < 4.5] == []
    page.evaluate("localStorage.clear()")


def test_the_theme_changes_by_the_keyboard_and_is_kept(page, report):
    page.open(report, theme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(background)
    page.press("Tab")
    assert page.evaluate(FOCUSED) == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    page.press("Tab")
    assert page.evaluate(FOCUSED) == "theme"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press(" ", "Space", " ")
    assert page.evaluate(background) != before
    assert page.evaluate("document.getElementById('theme').getAttribute('aria-pressed')") == "true"
    dark = page.evaluate(background)
    page.open(report, theme="light")
    assert page.evaluate(background) == dark
    page.evaluate("document.getElementById('theme').click()")
    assert page.evaluate(background) == before
    page.evaluate("localStorage.clear()")


def test_the_skip_link_leads_to_the_verdict(page, report):
    page.open(report)
    page.press("Tab")
    page.press("Enter", text="\r")
    assert page.evaluate(FOCUSED) == "main"


def test_the_keyboard_reaches_every_figure_and_every_table(page, report):
    page.open(report)
    wanted = page.evaluate(REACHABLE)
    seen, figures = 0, []
    for _ in range(wanted + 60):
        page.press("Tab")
        tag = page.evaluate("document.activeElement.tagName")
        if tag == "BODY":
            break
        seen += page.evaluate("document.activeElement.matches('figure, .scroll, summary, nav a')")
        if tag == "FIGURE":
            figures.append(page.evaluate("document.activeElement.id"))
    assert figures == page.evaluate("[...document.querySelectorAll('figure')].map(figure => figure.id)")
    assert set(FIGURES) < set(figures)
    assert seen == wanted


def test_landmarks_figures_and_tables_have_names(page, report):
    page.open(report)
    assert page.evaluate(NAMELESS) == []
    assert (
        page.evaluate("['header', 'nav', 'main', 'footer'].map(tag => document.querySelectorAll(tag).length)")
        == [1] * 4
    )
    assert page.evaluate("document.querySelectorAll('h1').length") == 1
    assert page.evaluate("document.querySelectorAll('main > section').length") == len(_SECTIONS)
    links = page.evaluate("[...document.querySelectorAll('nav a')].map(a => document.querySelector(a.hash)?.tagName)")
    assert links == ["H2"] * len(_SECTIONS)
    assert page.evaluate(DESCRIBED) is True
    assert page.evaluate("[...document.querySelectorAll('table:not(.facts)')].every(t => t.caption && t.tHead)")


def test_who_wants_less_motion_gets_none(page, report):
    behaviour = "getComputedStyle(document.documentElement).scrollBehavior"
    page.open(report, motion="reduce")
    assert page.evaluate(behaviour) == "auto"
    assert page.evaluate("document.getAnimations().length") == 0
    page.open(report)
    assert page.evaluate(behaviour) == "smooth"
