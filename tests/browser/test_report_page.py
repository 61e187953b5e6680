"""The committed report as a reader meets it: in a window of 390 and of 1,440 pixels, light and dark, and on paper."""

import re
import unicodedata

import axe_playwright_python
import pytest
from conftest import ROOT
from pypdf import PageObject, PdfReader
from pypdf.generic._font import Font  # which alone knows how wide a letter is

from grok_utils.page.build import PAGES
from grok_utils.page.export import print_pdf

AXE = ROOT.joinpath(axe_playwright_python.__path__[0], "axe.min.js")
WIDTHS = pytest.mark.parametrize("width", [390, 1440])
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])

UNFOLD = "document.querySelectorAll('details').forEach(d => d.open = true)"

# What reaches beyond the window and has no box round it that scrolls.
BEYOND = """() => [...document.querySelectorAll('body *')].filter(e =>
    e.getBoundingClientRect().right > innerWidth + 0.5 && !e.closest('svg, math') &&
    ![...function*() { for (let p = e.parentElement; p; p = p.parentElement) yield p }()]
        .some(p => ['auto', 'scroll'].includes(getComputedStyle(p).overflowX))
).map(e => e.outerHTML.slice(0, 100))"""

# Tables, their boxes and cells that hold more than they show.
CUT = """() => [...document.querySelectorAll('.scroll, .scroll :is(table, th, td)')]
    .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML.slice(0, 100))"""

# References by fragment, in links, in ARIA and in figures, that name nothing or more than one thing.
DANGLING = """() => {
    const wanted = [...document.querySelectorAll('[href^="#"]')].map(e => e.getAttribute('href').slice(1));
    for (const e of document.querySelectorAll('*')) {
        wanted.push(...(e.getAttribute('xlink:href') || '').split('#').slice(1));
        wanted.push(...(e.getAttribute('aria-labelledby') || '').split(' ').filter(Boolean));
        for (const a of e.attributes) wanted.push(...[...a.value.matchAll(/url\\(#(.*?)\\)/g)].map(m => m[1]));
    }
    return wanted.filter(id => document.querySelectorAll('#' + CSS.escape(id)).length != 1);
}"""

# The contrast (WCAG 2) with the page, or with the opaque cell that it is in, and size on the screen of every piece of
# text in a figure.
FIGURE_TEXT = """() => {
    const light = c => c.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const colour = text => text.match(/[\\d.]+/g).map(Number).slice(0, 3);
    const page = getComputedStyle(document.body).backgroundColor;
    return [...document.querySelectorAll('figure svg')].flatMap(svg => {
        const cells = [...svg.querySelectorAll('path')].map(e => [getComputedStyle(e), e.getBoundingClientRect()])
            .filter(([style]) => style.fill.startsWith('rgb(') && style.fillOpacity == 1 && style.opacity == 1);
        return [...svg.querySelectorAll('text')].filter(e => e.textContent.trim()).map(e => {
            const at = e.getBoundingClientRect(), x = at.x + at.width / 2, y = at.y + at.height / 2;
            const under = cells.filter(([_, r]) => r.left < x && x < r.right && r.top < y && y < r.bottom).pop();
            const ground = light(colour(under ? under[0].fill : page)), ink = light(colour(getComputedStyle(e).fill));
            const contrast = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
            const scale = Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b);
            return {words: e.textContent.trim(), contrast, pixels: parseFloat(getComputedStyle(e).fontSize) * scale};
        });
    });
}"""

# What axe judges, brought here as the little that is asked of it: of tens of thousands of places without fault, to tell
# each one's selector and to carry them all took longer than to judge them.
JUDGED = """async rules => {
    const found = await axe.run({runOnly: rules, selectors: false});
    const contrast = found.passes.filter(rule => rule.id == 'color-contrast').flatMap(rule => rule.nodes);
    return {
        faults: Object.fromEntries(found.violations.map(r => [r.id, r.nodes.map(node => node.html.slice(0, 150))])),
        cells: contrast.filter(node => /^<t[dh]/.test(node.html)).length,
    };
}"""


def squeezed(text: str) -> str:
    """Text without white space and ligatures, which a PDF does not keep as they were."""
    return re.sub(r"\s", "", unicodedata.normalize("NFKC", text))


def test_the_page_is_one_file_that_asks_nobody_and_runs_nothing(browser, report):
    context = browser.new_context()
    page = context.new_page()
    asked, complaints = [], []
    context.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(report.as_uri())
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.evaluate(UNFOLD)
        page.mouse.wheel(0, 100_000)
        page.wait_for_timeout(300)
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert complaints == []  # such as of what the policy forbade
    assert page.locator("script").count() == 0
    policy = page.locator("meta[http-equiv='Content-Security-Policy']").get_attribute("content")
    assert policy.startswith("default-src 'none'")
    assert report.stat().st_size <= 3_000_000
    context.close()


def test_the_page_is_whole_without_scripts(open_page):
    page = open_page(java_script_enabled=False)
    page.locator("summary").first.click()
    assert page.locator("details").first.locator("pre").first.is_visible()
    assert page.locator("figure.picture svg").first.is_visible()


@WIDTHS
def test_nothing_overflows(open_page, width):
    page = open_page(width)
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(BEYOND) == []
        page.evaluate(UNFOLD)


def test_a_wide_table_scrolls_inside_its_box_on_a_phone(open_page):
    page = open_page(390)
    boxes = page.locator(".scroll").all()
    wide = [box for box in boxes if box.evaluate("e => e.scrollWidth > e.clientWidth")]
    assert wide != []
    for box in wide:
        last = box.locator("tr").first.locator("th").last
        before = last.bounding_box()["x"]
        box.evaluate("e => e.scrollLeft = e.scrollWidth")
        after = last.bounding_box()
        assert after["x"] < before
        assert after["x"] + after["width"] <= 390


def test_every_figure_says_what_it_shows(open_page):
    page = open_page()
    pictures = page.locator("figure.picture").all()
    assert len(pictures) >= 5
    for picture in pictures:
        image = picture.get_by_role("img")
        assert image.count() == 1
        assert len(picture.locator("figcaption").inner_text()) >= 20
    told = [picture.get_by_role("img").get_attribute("aria-label") for picture in pictures]
    assert [text for text in told if not 100 <= len(text) <= 800 or "`" in text or not re.search(r"\d", text)] == []
    assert len(set(told)) == len(told)


def test_figures_and_tables_are_numbered_in_order(open_page):
    page = open_page()
    for selector, word in {"figure.picture": "Figure", "figure.numbers": "Table"}.items():
        labels = page.locator(f"{selector} figcaption b:first-child").all_inner_texts()
        assert [label.strip() for label in labels] == [f"{word} {i + 1}." for i in range(len(labels))]
        assert len(labels) == page.locator(selector).count() > 0


def test_every_link_and_reference_resolves(open_page, report):
    page = open_page()
    assert page.evaluate(DANGLING) == []
    links = page.locator("a[href]").all()
    assert len(links) > 10
    for link in links:
        target = link.get_attribute("href")
        if not target.startswith("#"):
            assert target in {f"../{name}/report.html" for name in PAGES} and (report.parent / target).exists()
            continue
        label = re.fullmatch(r"(Figure|Table) \d+", link.inner_text().strip())
        if label:
            assert page.locator(f"{target} figcaption b").first.inner_text().strip() == f"{label[0]}."


@WIDTHS
def test_a_click_in_the_contents_goes_there(open_page, width):
    page = open_page(width)
    for link in page.locator("nav a").all():
        link.click()
        top = page.locator(link.get_attribute("href")).bounding_box()["y"]
        at_end = page.evaluate("innerHeight + scrollY >= document.documentElement.scrollHeight - 1")
        assert -1 <= top < 120 or at_end, link.inner_text()


def test_the_columns_of_the_contents_begin_at_the_same_height(open_page):
    first, *later = (item.bounding_box() for item in open_page(1200).locator("nav li").all())
    tops = [box["y"] for box in later if box["x"] > first["x"] + 100]
    assert tops and min(tops) == pytest.approx(first["y"], abs=0.5)


def test_code_unfolds_on_a_click(open_page):
    page = open_page()
    folded = page.locator("details").all()
    assert len(folded) >= 5
    for details in folded:
        code = details.locator("pre").first
        assert not code.is_visible()
        details.locator("summary").click()
        assert code.is_visible()
        assert len(code.inner_text()) > 20


@WIDTHS
@SCHEMES
def test_axe_finds_no_fault(open_page, width, scheme):
    page = open_page(width, scheme, bypass_csp=True)  # the page's policy would keep axe out
    page.evaluate(UNFOLD)
    # Axe judges no words on a gradient, nor those that are scrolled out of sight.
    page.add_style_tag(content=".scroll { background: none !important; overflow: visible !important }")
    page.add_script_tag(path=AXE)
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    judged = page.evaluate(JUDGED, rules)
    assert judged["faults"] == {}
    assert judged["cells"] > 0.8 * page.locator("td, th").count()


@WIDTHS
@SCHEMES
def test_words_in_figures_are_legible(open_page, width, scheme):
    texts = open_page(width, scheme).evaluate(FIGURE_TEXT)
    assert len(texts) > 50
    assert [t for t in texts if t["contrast"] < 4.5 or t["pixels"] < 8.5] == []


@SCHEMES
def test_paper_is_white_and_cuts_off_nothing(open_page, scheme):
    page = open_page(695, scheme)  # A4 less the margins of the style sheet
    page.emulate_media(media="print", color_scheme=scheme)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 695
    assert page.evaluate(BEYOND) == []
    assert page.evaluate(CUT) == []
    assert [t for t in page.evaluate(FIGURE_TEXT) if t["contrast"] < 4.5 or t["pixels"] < 8] == []  # 6 points


@pytest.fixture(scope="module")
def printed(report, tmp_path_factory) -> PdfReader:
    """The report as `make pdf` prints it."""
    pdf = tmp_path_factory.mktemp("printed") / "report.pdf"
    print_pdf(report, pdf)
    return PdfReader(pdf)


def width(text: str, font: Font) -> float:
    """How wide a text is, in sizes of its font."""
    glyphs = {letters: glyph for glyph, letters in font.character_map.items()}
    return sum(font.character_widths.get(glyphs[letter], font.character_widths["default"]) for letter in text) / 1000


def words_of(page: PageObject) -> list[tuple[str, float, float, float]]:
    """Each piece of text of a printed page with the x where it begins and ends, and its y, in points."""
    words = []
    fonts: dict[int, tuple[object, Font]] = {}  # by entry: to read one for each text took longer than the rest

    def seen(text, user, matrix, font, size):
        if text.strip():
            x, y = matrix[4], matrix[5]
            start, height = x * user[0] + y * user[2] + user[4], x * user[1] + y * user[3] + user[5]
            if id(font) not in fonts:
                fonts[id(font)] = font, Font.from_font_resource(font)
            end = start + width(text.strip("\n"), fonts[id(font)][1]) * size * matrix[0] * user[0]
            words.append((text, start, end, height))

    page.extract_text(visitor_text=seen)
    return words


def test_the_printed_tables_have_every_cell_within_the_page(open_page, printed):
    words = [(page, *word) for page in printed.pages for word in words_of(page)]
    margin = 32  # points, of the style sheet's 13 mm; the rest is for how pypdf reckons
    beyond = [word for page, *word, _ in words if word[1] < margin or word[2] > page.mediabox.width - margin]
    assert beyond == []
    text = squeezed("".join(word[1] for word in words))
    tables = open_page().locator("figure.numbers table").all()
    assert len(tables) >= 5
    for table in tables:
        for column in ("first", "last"):
            cells = table.locator(f":is(th, td):{column}-child").all_inner_texts()
            assert len(cells) > 1
            assert [cell for cell in cells if squeezed(cell) not in text] == []


def test_no_printed_page_but_the_last_is_two_fifths_empty(printed):
    for page in printed.pages[:-1]:
        footer = 46  # points: the lower margin, which holds the page's number
        lowest = min(y for *_, y in words_of(page) if y > footer)
        assert lowest < 0.4 * page.mediabox.height, page.page_number


def test_the_print_lists_its_sections_and_numbers_its_pages(open_page, printed):
    sections = [entry.title for part in printed.outline if isinstance(part, list) for entry in part]
    assert sections == open_page().locator("main h2").all_inner_texts()
    for i, page in enumerate(printed.pages, start=1):
        assert page.extract_text().startswith(f"{i} of {len(printed.pages)}")
