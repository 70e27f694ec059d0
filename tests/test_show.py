"""The page of a run, in a browser: it works from the disk, filters, trusts nothing, and stays quick with 2,000
images."""

import json

import pytest
from browser import Browser
from PIL import Image

from speciarl.core.scale import UserError
from speciarl.policy.predictions import Predictions, to_table, write_predictions
from speciarl.report.page import make_page, spread, write_page

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    '"><svg onload="window.hacked = 1">',
    "</article></main><h1>mine</h1>",
    "${alert(1)} {{7*7}}",
    "‮gnidliub ,t\0ext",
    "]]><!--",
    "w" * 100_000,
    "&lt;b&gt;",
    "javascript:window.hacked=1",
    "half \ud800 a pair",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def row(i, answer, category, **changes):
    return (
        dict(
            sample_id=f"{i}.png",
            dataset="birds",
            split="test",
            label="ovenbird" if i % 2 else "hooded warbler",
            prompt="general",
            rollout=0,
            text=answer,
            answer=answer,
            category=category,
            source="tree",
            reason="because",
        )
        | changes
    )


def publish(path, rows):
    write_predictions(
        path, Predictions({"settings": {"policy": "a <b>toy</b>", "datasets": ["birds"]}}, to_table(rows))
    )
    return path


ROWS = [
    row(0, "bird", "generic"),
    row(1, "ovenbird", "specific"),
    row(2, "warbler", "less specific"),
    row(3, None, "wrong", source="format"),
    row(4, "a quux", None, source="undecided"),
]


@pytest.fixture
def page(tmp_path):
    from speciarl.data.samples import Sample

    samples = [Sample(r["sample_id"], Image.new("RGB", (300, 200), "tan"), r["label"], "birds") for r in ROWS]
    return write_page(publish(tmp_path / "a.parquet", ROWS), tmp_path / "a page", samples)


VISIBLE = (
    "[...document.querySelectorAll('article')].filter(a => a.checkVisibility()).map(a => "
    "a.querySelector('.id').textContent)"
)


def choose(browser, name, value):
    browser.js(
        f"document.forms[0].elements['{name}'].value = {json.dumps(value)}; document.forms[0].dispatchEvent(new "
        "Event('input'))"
    )


@pytest.mark.needs_chromium
def test_the_page_works_from_the_disk(browser, page):
    browser.open(page)
    assert browser.js("[document.forms[0].checkVisibility(), document.getElementById('count').value]") == [
        True,
        "5 images",
    ]
    assert (
        browser.js(
            "Promise.all([...document.images].map(i => (i.loading = 'eager', i.decode()))).then(() => "
            "[...document.images].map(i => i.naturalWidth))"
        )
        == [192] * 5
    )
    requests = [e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    assert requests and all(url.startswith("file:") for url in requests), "nothing is fetched but files"
    assert not [
        e for e in browser.events if e.get("method") == "Log.entryAdded" and e["params"]["entry"]["level"] == "error"
    ]


@pytest.mark.needs_chromium
def test_filters_and_counts(browser, page):
    browser.open(page)
    choose(browser, "label", "ovenbird")
    assert (
        browser.js(VISIBLE) == ["1.png", "3.png"]
        and browser.js("document.getElementById('count').value") == "2 of 5 images"
    )
    assert browser.js("[...document.querySelectorAll('[data-level]')].map(o => o.value)") == [
        "0",
        "1",
        "0",
        "0",
        "0",
        "1",
        "0",
    ]
    choose(browser, "label", "")
    browser.js(
        "document.querySelectorAll('[name=level]').forEach(box => { if (box.value !== 'no-verdict' && box.value !== "
        "'generic') box.click() })"
    )
    assert browser.js(VISIBLE) == ["0.png", "4.png"]
    choose(browser, "text", "QUUX")
    assert browser.js(VISIBLE) == ["4.png"]
    browser.js("document.querySelector('[type=reset]').click(), new Promise(done => setTimeout(done, 20))")
    assert len(browser.js(VISIBLE)) == 5


@pytest.mark.needs_chromium
def test_an_image_with_several_answers_is_found_by_each_category(browser, tmp_path):
    said = [("bird", "generic"), ("warbler", "less specific"), ("quux", None)]
    rows = [row(0, answer, category, rollout=i) for i, (answer, category) in enumerate(said)]
    browser.open(write_page(publish(tmp_path / "a.parquet", rows), tmp_path / "page"))
    for level, there in (("less-specific", 1), ("no-verdict", 1), ("generic", 1), ("wrong", 0)):
        browser.js(
            f"document.querySelectorAll('[name=level]').forEach(box => {{ box.checked = box.value === '{level}' }})"
        )
        browser.js("document.forms[0].dispatchEvent(new Event('input'))")
        assert len(browser.js(VISIBLE)) == there, level


@pytest.mark.needs_chromium
def test_the_keyboard_is_enough(browser, page):
    browser.open(page)
    at = "document.activeElement.id || document.activeElement.name"
    for key in "jjk":
        browser.key(key)
    assert browser.js(at) == "e0"
    choose(browser, "label", "ovenbird")
    browser.key("j")
    assert browser.js(at) == "e1", "hidden images are passed over"
    browser.key("j")
    browser.key("j")
    assert browser.js(at) == "e3", "the last one is the end"
    browser.key("/")
    assert browser.js(at) == "text" and browser.js("document.forms[0].elements.text.value") == ""
    browser.key("j")
    assert browser.js(at) == "text" and browser.js("document.forms[0].elements.text.value") == "j", (
        "in a field, letters are letters"
    )
    browser.key("Escape")
    browser.js("new Promise(done => setTimeout(done, 20))")
    assert len(browser.js(VISIBLE)) == 5
    assert browser.js(
        "[...document.querySelectorAll('select, input, button')].every(e => e.tabIndex >= 0 && (e.closest('label') "
        "|| e.textContent))"
    )


@pytest.mark.needs_chromium
def test_hostile_text_is_only_text(browser, tmp_path):
    rows = [
        row(i, text, "wrong", label=text, sample_id=text[:200] + str(i), reason=text) for i, text in enumerate(HOSTILE)
    ]
    page = write_page(publish(tmp_path / "bad.parquet", rows), tmp_path / "page")
    browser.open(page)
    assert browser.js(
        "[window.hacked ?? 0, document.querySelectorAll('article').length, "
        "document.querySelectorAll('script').length, document.querySelectorAll('h1').length, "
        "document.querySelectorAll('svg, b, img').length]"
    ) == [0, len(HOSTILE), 1, 1, 0]
    assert browser.js("document.querySelector('article bdi').textContent") == HOSTILE[0]
    assert browser.js("document.body.scrollWidth <= document.documentElement.clientWidth"), (
        "no text is wider than the page"
    )
    assert browser.js(
        "[...document.forms[0].elements.label.options].slice(1).every(o => "
        "[...document.querySelectorAll('article')].some(a => a.dataset.label === o.value))"
    ), "every class can be chosen"
    browser.js(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked = 2\">'), new "
        "Promise(done => setTimeout(done, 100))"
    )
    assert browser.js("window.hacked ?? 0") == 0, "the policy of the page forbids scripts that are not its own"


@pytest.mark.needs_chromium
@pytest.mark.parametrize("attack", HOSTILE[:4])
def test_names_and_cards_are_only_text_too(browser, tmp_path, attack):
    "A run's name, its settings and scores, the data sets and the reasons for a missing picture come from elsewhere."
    name = attack.replace("/", "∕")
    rows = [row(i, "bird", "generic", dataset=f"{attack}{i}", sample_id=attack, split=attack) for i in range(2)]
    card = {
        "settings": {"policy": attack, "sampling": {attack: attack}},
        "scores": {attack: attack},
        "counts": {attack: attack},
    }
    write_predictions(tmp_path / f"{name}.parquet", Predictions(card, to_table(rows)))
    page = write_page(tmp_path / f"{name}.parquet", tmp_path / "page")
    browser.open(page)
    assert browser.js("[document.title, document.querySelector('h1').textContent]") == [f"{name}.parquet"] * 2
    assert (
        browser.js(
            "[...document.querySelectorAll('dd')].filter(d => d.textContent.includes(%s)).length" % json.dumps(attack)
        )
        == 4
    )
    assert browser.js("document.forms[0].elements.dataset.options.length") == 3
    assert browser.js(
        "[window.hacked ?? 0, document.querySelectorAll('script').length, document.querySelectorAll('svg, b, "
        "img').length]"
    ) == [0, 1, 0]


@pytest.mark.needs_chromium
def test_dark_and_print(browser, page):
    colours = "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"

    def contrast():
        def light(colour):
            channels = [int(c) / 255 for c in colour[colour.index("(") + 1 : -1].split(",")[:3]]
            return sum(
                w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
                for w, c in zip((0.2126, 0.7152, 0.0722), channels)
            )

        ink, paper = map(light, browser.js(colours))
        return (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05), ink > paper

    browser.open(page)
    seen = {}
    for scheme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        ratio, seen[scheme] = contrast()
        assert ratio > 7
    browser.call(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    assert contrast()[0] > 7 and not browser.js("document.forms[0].checkVisibility()")
    assert len(browser.js(VISIBLE)) == 5 and seen == {"light": False, "dark": True} and not contrast()[1], (
        "ink is dark on paper"
    )
    browser.call("Emulation.setEmulatedMedia", media="", features=[])


@pytest.mark.needs_chromium
def test_without_script_everything_is_there(browser, page):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        root = browser.call("DOM.getDocument", depth=-1)["root"]
        text = json.dumps(root)
        assert text.count('"nodeName": "ARTICLE"') == 5 and "a quux" in text
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.needs_chromium
def test_two_thousand_images_filter_at_once(browser, tmp_path):
    rows = [
        row(i, f"answer {i % 97}", ("wrong", "generic", "specific")[i % 3], label=f"class {i % 200}")
        for i in range(2000)
    ]
    browser.open(write_page(publish(tmp_path / "many.parquet", rows), tmp_path / "page"))
    choose(browser, "label", "class 7")
    choose(browser, "text", "answer 7")
    assert len(browser.js(VISIBLE)) == len([r for r in rows if r["label"] == "class 7" and "answer 7" in r["answer"]])
    print(
        browser.js(
            "(() => { const start = performance.now(); document.forms[0].dispatchEvent(new Event('input')); return "
            "performance.now() - start })()"
        ),
        "ms for one filter",
    )


def test_groups_answers_and_says_what_is_missing(tmp_path):
    rows = [row(0, answer, "generic", rollout=i) for i, answer in enumerate(["bird", "animal", "bird"])]
    text = write_page(publish(tmp_path / "a.jsonl", rows), tmp_path / "page").read_text()
    assert text.index("2 ×") < text.index("1 ×") and text.count("<article") == 1 and "no picture at hand" in text
    assert "a &lt;b&gt;toy" in text


def test_the_page_says_what_part_of_a_run_it_shows(tmp_path):
    many = publish(tmp_path / "a.parquet", [row(i, "bird", "generic") for i in range(1200)])
    text = write_page(many, tmp_path / "page", limit=1001).read_text()
    assert "1,001 of 1,200 images, evenly spread over the run." in text and text.count("<article") == 1001
    assert "evenly spread" not in write_page(many, tmp_path / "page").read_text()


def test_a_broken_picture_has_a_frame_with_the_reason(tmp_path):
    from speciarl.data.samples import Sample

    (tmp_path / "0.png").write_bytes(b"no picture")
    text = write_page(
        publish(tmp_path / "a.parquet", ROWS[:1]),
        tmp_path / "page",
        [Sample("0.png", tmp_path / "0.png", "x", "birds")],
    ).read_text()
    assert '<p class="gone">' in text and "the image is corrupt, truncated or of another format" in text


@pytest.mark.parametrize("mode", ["CMYK", "I;16", "P", "1x1", "long"])
def test_odd_pictures_become_thumbnails(tmp_path, mode):
    from speciarl.data.samples import Sample

    size = {"1x1": (1, 1), "long": (30_000, 3)}.get(mode, (40, 20))
    picture = Image.new(mode if mode in ("CMYK", "I;16", "P") else "RGB", size)
    page = write_page(
        publish(tmp_path / "a.parquet", ROWS[:1]), tmp_path / "page", [Sample("0.png", picture, "x", "birds")]
    )
    with Image.open(page.parent / "thumbnails" / "000000.jpg") as thumb:
        assert thumb.mode == "RGB" and max(thumb.size) <= 192


def test_refusals(tmp_path):
    published = publish(tmp_path / "a.parquet", ROWS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match="mine exists and is no page of a run; choose another --out$"):
        write_page(published, tmp_path / "mine")
    with pytest.raises(UserError, match="^cannot write /proc/page: .*; choose a folder you may write to$"):
        write_page(published, "/proc/page")
    unjudged = publish(tmp_path / "b.parquet", [r | dict(category=None, source=None) for r in ROWS])
    with pytest.raises(UserError, match="no judge has seen all of these predictions; judge them first$"):
        write_page(unjudged, tmp_path / "page")
    assert not (tmp_path / "page").exists() and spread([1, 2, 3], 2) == [1, 3]


@pytest.mark.needs_chromium
def test_the_page_in_a_notebook_shows_its_pictures_and_filters_by_itself(browser, tmp_path):
    from speciarl.data.samples import Sample

    samples = [Sample(r["sample_id"], Image.new("RGB", (300, 200), "tan"), r["label"], "birds") for r in ROWS]
    made = make_page(publish(tmp_path / "a.parquet", ROWS), tmp_path / "page", samples)
    shown = made._repr_html_().replace('sandbox="allow-scripts"', "")  # so that the test may look inside
    (tmp_path / "notebook.html").write_text(shown, encoding="utf-8")
    for file in (tmp_path / "page" / "thumbnails").iterdir():
        file.unlink()
    browser.open(tmp_path / "notebook.html")
    inside = "document.querySelector('iframe').contentDocument"
    assert (
        browser.js(
            f"Promise.all([...{inside}.images].map(i => (i.loading = 'eager', i.decode()))).then(() => "
            f"[...{inside}.images].map(i => i.naturalWidth))"
        )
        == [192] * 5
    )
    assert browser.js(f"{inside}.getElementById('count').value") == "5 images"


def test_a_notebook_is_shown_a_part_of_a_long_page(tmp_path):
    made = make_page(
        publish(tmp_path / "a.parquet", [row(i, "bird", "generic") for i in range(250)]), tmp_path / "page"
    )
    html = made._repr_html_()
    assert html.count("&lt;article") == 100 and "100 of 250 images, evenly spread over the run." in html
    assert made.path.read_text().count("<article") == 250 and repr(made) == f"wrote {made.path}"


def test_hostile_text_stays_inside_the_frame(tmp_path):
    rows = [row(i, text, "wrong", label=text, reason=text) for i, text in enumerate(HOSTILE)]
    rows.append(row(99, 'src="thumbnails/000000.jpg"', "wrong"))
    html = make_page(publish(tmp_path / "bad.parquet", rows), tmp_path / "page")._repr_html_()
    assert html.count("<iframe") == html.count("<") - 3 == 1 and html.count('"') == 6  # the frame, its end, a paragraph


TABLES = [
    "uid,label,answer,category\n1,pug,dog,generic\n2,pug,cat,wrong\n",
    "image,label,answer,category\n1.png,pug,dog,generic\n2.png,pug,cat,wrong\n",
    "file;label;answer;category\nsub/3.jpg;pug;dog;generic\n2.png;pug;cat;wrong\n",
    "sample_id,image,label,answer,category\nx,1.png,pug,dog,generic\ny,./2.png,pug,cat,wrong\n",
]


@pytest.mark.parametrize("table", TABLES)
def test_pictures_of_a_table_are_found_by_its_columns(tmp_path, table):
    from typer.testing import CliRunner

    from speciarl.cli.app import app

    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for name in ("1.png", "2.png", "sub/3.jpg"):
        Image.new("RGB", (40, 30), "tan").save(tmp_path / "photos" / name)
    (tmp_path / "v.csv").write_text(table)
    line = ["show", str(tmp_path / "v.csv"), "--images", str(tmp_path / "photos")]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0 and result.stdout == f"wrote {tmp_path}/v-page/index.html\n", result.output
    assert len(list((tmp_path / "v-page" / "thumbnails").iterdir())) == 2
    result = CliRunner().invoke(
        app, [*line[:2], "--images", str(tmp_path / "photos" / "sub"), "--out", str(tmp_path / "p")]
    )
    if "3.jpg" not in table:
        assert result.exit_code == 2 and "none of the pictures is in it (the first: 1" in result.stderr
    result = CliRunner().invoke(app, [*line[:2], "--images", str(tmp_path / "nowhere"), "--out", str(tmp_path / "q")])
    assert result.exit_code == 2 and "no such folder; give the one that holds the pictures" in result.stderr
    assert not (tmp_path / "q").exists()
