"""The recommending example on small runs: what it prints, and its page in a real browser."""

import html
import re
from html.parser import HTMLParser

import pytest

from mgwa_pyg.datasets import RecBoleKG
from mgwa_pyg.recommend import Recommender
from mgwa_pyg.train import CollaborativeConfig, fit
from tests.examples.run import run_example

MODELS = ["collaborative", "mgwa"]


@pytest.fixture(scope="module", params=MODELS)
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / request.param
    options = ["--data", "synthetic", "--seeds", 1, "--epochs", 2, "--negatives", "items"]
    run_example("lastfm_mgwa", "--model", request.param, *options, "--out", folder)
    return folder


@pytest.fixture(scope="module")
def page(run):
    file = run / "why.html"
    run_example("recommend", run, "--items", "item 3", "item 14", "item 15", "--html", file)
    return file


def test_prints_what_the_recommender_says(run):
    status, out, _ = run_example("recommend", run, "--user", 7, "-k", 4)
    assert status == 0
    want = Recommender.load(run).recommend(7, 4)
    rows = re.findall(r"│ (\d+) +│ (.*?) +│ +(\S+) +│ (.*?) +│", out)
    assert [(int(rank), name) for rank, name, _, _ in rows] == list(
        zip(want["rank"], want["name"], strict=True)
    )
    assert [score for _, _, score, _ in rows] == [f"{score:.2f}" for score in want["score"]]
    assert "For user 7." in out
    assert f"{want['name'][0]} has the score" in out


def test_asks_for_the_five_most_popular_items_by_default(run):
    _, out, _ = run_example("recommend", run)
    names = re.search(r"For somebody who listened to (.*)\.", out)[1].split(", ")
    seen = Recommender.load(run).dataset[0]["user", "listens", "entity"].edge_index[1].bincount()
    assert (
        sorted(seen[[int(name.split()[1]) for name in names]].tolist())
        == seen.topk(5).values.sort().values.tolist()
    )
    assert len(re.findall(r"│ \d+ +│ item \d+", out)) == 10


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--items", "nobody"], "error: no item is called 'nobody'"),
        (["--user", "4000"], "error: no user has the id '4000'"),
        (["-k", "0"], "error: k=0: at least 1 is needed"),
    ],
)
def test_says_what_is_wrong_in_a_line(run, args, message):
    complaint, out, _ = run_example("recommend", run, *args)  # Python prints it and exits with 1.
    assert complaint.startswith(message)
    assert "\n" not in complaint
    assert out == ""


def test_needs_a_run(tmp_path):
    complaint, _, _ = run_example("recommend", tmp_path / "nothing")
    assert complaint.startswith("error:")
    assert "best.ckpt is missing: pass the folder of a run" in complaint


class Addresses(HTMLParser):
    """Collects what a page would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_the_page_needs_nothing_else(page):
    text = page.read_text(encoding="utf-8")
    parser = Addresses()
    parser.feed(text)
    assert len(parser.found) == 12  # Ten explanations and two plots of the run.
    assert all(address.startswith("data:image/png;base64,") for address in parser.found)
    assert not re.search(r"@import|url\(|<script|<link", text)
    assert "neighbor" not in text


@pytest.mark.browser
def test_a_browser_shows_the_page(browser, page, run):
    by_css, by_tag = "css selector", "tag name"
    browser.set_window_size(400, 800)
    browser.get(page.as_uri())
    want = Recommender.load(run).recommend_for(["item 3", "item 14", "item 15"])
    rows = browser.find_elements(by_css, "#recommendations tr")[1:]
    shown = [[cell.text for cell in row.find_elements(by_tag, "td")][:3] for row in rows]
    columns = want["rank"], want["name"], want["score"]
    assert shown == [[str(r), name, f"{score:.2f}"] for r, name, score in zip(*columns, strict=True)]

    closed = browser.find_elements(by_css, "details:not([open])")
    assert len(closed) == 9
    closed[0].find_element(by_tag, "summary").click()
    assert closed[0].find_element(by_tag, "p").text.startswith(f"{want['name'][1]} has the score")

    browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    widths = browser.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth)")
    assert len(widths) == 12
    assert min(widths) > 400
    # Eight points of a picture with 130 dots an inch: its letters are read at half that size, not less.
    shares = browser.execute_script("return [...document.images].map(i => i.width / i.naturalWidth)")
    assert min(shares) > 0.45
    # The table of an explanation has all of its columns on the screen.
    cells = browser.find_elements(by_css, "details td")
    assert max(cell.rect["x"] + cell.rect["width"] for cell in cells) <= 400
    # On a narrow screen tables scroll by themselves, and the page does not.
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    assert "synthetic data" in browser.find_element(by_tag, "body").text
    assert browser.get_log("browser") == []


NAMES = ["[unknown]", "[/b] band", "[red]hot", ":smile: [link=x]y[/link]", "Ke$ha $x$", "<b>fat</b> & 'co'"]
NAMES += ["plain", "a\\b", "日本", "{{ 7 * 7 }}", "red \x1b[31m line", "7", "u1"]


@pytest.mark.filterwarnings("ignore:Glyph .* missing from")  # The plot's has no such letters.
def test_names_are_text(tmp_path):
    """Neither rich nor HTML nor jinja nor the terminal reads them."""
    folder = tmp_path / "bands"
    folder.mkdir()
    size = len(NAMES)
    tables = {
        "inter": ["user_id:token\titem_id:token"],
        "kg": ["head_id:token\trelation_id:token\ttail_id:token"],
        "link": ["item_id:token\tentity_id:token"],
        "item": ["item_id:token\tname:token_seq"],
    }
    # An item's id is the name of another one.
    ids = [str(number) for number in range(size)]
    tables["inter"] += [f"u{user}\t{(user + step) % size}" for user in range(20) for step in (0, 1, 5)]
    tables["kg"] += [f"e{item}\t[bold]<i>by</i>\t<u>[dim]x" for item in range(size)]
    tables["link"] += [f"{item}\te{item}" for item in range(size)]
    tables["item"] += [f"{id_}\t{name}" for id_, name in zip(ids, NAMES, strict=True)]
    for kind, lines in tables.items():
        (folder / f"bands.{kind}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    fit(RecBoleKG(tmp_path, "bands"), CollaborativeConfig(epochs=1, passes=1), tmp_path / "run")

    page = tmp_path / "page.html"
    status, out, _ = run_example(
        "recommend", tmp_path / "run", "--items", "plain", "-k", size - 1, "--html", page
    )
    assert status == 0
    shown = [name.replace("\x1b", " ") for name in NAMES]
    listed = [name.strip() for name in re.findall(r"│ \d+ +│ (.*?) │ +[-\d.]+ +│", out)]
    assert sorted(listed) == sorted(name for name in shown if name != "plain")
    assert "\x1b" not in out
    text = page.read_text(encoding="utf-8")
    assert not any(tag in text for tag in ("<b>", "<i>", "<u>"))
    cells = [html.unescape(cell) for cell in re.findall("<summary>(.*?)</summary>", text)]
    assert sorted(cells) == sorted(name for name in NAMES if name != "plain")

    complaint, _, _ = run_example("recommend", tmp_path / "run", "--items", "7")
    assert "the item '7' may be one of 2 items" in complaint
    status, out, _ = run_example("recommend", tmp_path / "run", "--user", "u1", "-k", 3)
    assert "For user u1." in out
