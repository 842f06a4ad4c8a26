"""The README's table and the model card are those of the committed report; the page holds in a real browser (pytest -m browser)."""
import json, os, re, shutil
from pathlib import Path

import pytest
from huggingface_hub import metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results
from memo_bert.core import MemoBertError, ModelFolder, assets
from memo_bert.report import METRICS, html_report, read_report, write_card, write_results

ROOT = Path(__file__).parent.parent
COMMITTED = ModelFolder("memo", root=ROOT/"outputs")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVIL = '</td></table><script>console.error("memo")</script><img src="nowhere.png">买牛奶' + "长"*300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "What the last run left, or what is committed of one, with a hostile memo among the flips and a hostile machine."
    f = ModelFolder("memo", root=tmp_path_factory.mktemp("run"))
    source = ModelFolder("memo") if (ModelFolder("memo")/"report.json").exists() else COMMITTED
    f.path.mkdir()
    for n in ("labels.txt", "config.json"): shutil.copy(assets("memo", n), f/n)
    for p in source.path.rglob("*"):
        if p.suffix in (".png", ".onnx", ".tflite", ".jsonl", ".safetensors"):
            (f/p.relative_to(source.path)).parent.mkdir(exist_ok=True)
            (f/p.relative_to(source.path)).symlink_to(p)
    report = read_report(source)
    report["flips"].append(dict(artefact="TFLite int8", memo=EVIL, label="购物", reference="购物", answer="饮食"))
    report["context"]["machine"] += EVIL
    (f/"report.json").write_text(json.dumps(report), encoding="utf-8")
    return f


@pytest.fixture(scope="module")
def html(folder): return html_report(folder, [(ROOT/"nbs/figs/netron_model.png", "Netron")])


def test_readme_has_the_numbers_of_the_report(tmp_path):
    text = (ROOT/"README.md").read_text(encoding="utf-8")
    copy, report = tmp_path/"README.md", read_report(COMMITTED)
    for before in (text, text.replace(f"{report['artefacts']['PyTorch']['accuracy']:.4f}", "0.9999")):
        copy.write_text(before, encoding="utf-8")
        assert write_results(report, copy).read_text(encoding="utf-8") == text


def test_card_has_the_metrics_of_the_report():
    name, found = model_index_to_eval_results(metadata_load(COMMITTED/"README.md")["model-index"])
    rows = read_report(COMMITTED)["artefacts"]
    assert name == "memo" and {(r.metric_name, r.metric_type, r.metric_value) for r in found} == {(f"{n}, {f}", k, r[c]) for f, r in rows.items() for c, (k, n) in METRICS.items()}


def test_card_is_the_one_the_report_makes(tmp_path):
    f = ModelFolder("memo", root=tmp_path)
    f.path.mkdir()
    for p in (assets("memo/labels.txt"), assets("memo/config.json"), COMMITTED/"report.json"): shutil.copy(p, f.path)
    assert write_card(f).read_bytes() == (COMMITTED/"README.md").read_bytes()


def test_licence_is_not_claimed_for_other_models(tmp_path):
    f = ModelFolder("mine", root=tmp_path)
    f.path.mkdir()
    for p in (assets("memo/labels.txt"), assets("memo/config.json"), COMMITTED/"report.json"): shutil.copy(p, f.path)
    assert not {"license", "language"} & set(metadata_load(write_card(f)))


def test_memos_are_text(html):
    page = html.read_text(encoding="utf-8")
    assert "<script" not in page and "nowhere.png&#34;&gt;" in page and 'src="nowhere' not in page


def test_nothing_to_fetch_and_nothing_of_the_machine(html):
    page = re.sub(r"base64,[\w+/=]+", "", html.read_text(encoding="utf-8"))
    assert not re.search(r"(?:src|href)=\"(?!#|data:)|@import|url\((?!data:)", page)
    assert str(html.parent) not in page and not re.search(r"/(root|home|tmp|work|Users)/\w", page)


def test_same_run_same_bytes(folder, html):
    first = html.read_bytes()
    assert html_report(folder, [(ROOT/"nbs/figs/netron_model.png", "Netron")]).read_bytes() == first


def test_no_report_yet(tmp_path):
    (tmp_path/"memo").mkdir()
    for call in (html_report, write_card):
        with pytest.raises(MemoBertError, match="memo has no report.json yet; run 03_evaluate with it first."): call(ModelFolder("memo", root=tmp_path))
    assert not list((tmp_path/"memo").iterdir())


def test_another_model_without_flips_or_runtimes(tmp_path):
    f, report = ModelFolder("mine", root=tmp_path), read_report(COMMITTED)
    f.path.mkdir()
    shutil.copy(assets("memo/config.json"), f.path)
    (f/"labels.txt").write_text("spam\nham\n")
    quiet = {n: r | dict(flips=0) for n, r in report["artefacts"].items()}
    (f/"report.json").write_text(json.dumps(report | dict(artefacts=quiet, flips=[], runtimes={})), encoding="utf-8")
    page = html_report(f).read_text(encoding="utf-8")
    assert "No file gives any memo another label" in page and "None was tried" in page and "@font-face" not in page and "spam" in page


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else [])
        yield browser
        browser.close()


def opened(browser, path, width, scheme="light"):
    "The page of a file, and what is wrong with it: console errors, failed or foreign requests, broken images, sideways scrolling."
    page, wrong = browser.new_context(viewport=dict(width=width, height=900), color_scheme=scheme).new_page(), []
    page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: wrong.append(f"exception: {e}"))
    page.on("requestfailed", lambda r: wrong.append(f"failed: {r.url[:80]}"))
    page.on("request", lambda r: wrong.append(f"asked for: {r.url}") if not r.url.startswith(("data:", path.as_uri())) else None)
    page.goto(path.as_uri(), wait_until="load")
    page.evaluate("document.fonts.ready.then(() => 0)")
    page.wait_for_timeout(200)
    wrong += page.evaluate("[...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => `broken: ${i.alt}`)")
    if (scroll := page.evaluate("document.documentElement.scrollWidth")) > width: wrong.append(f"scrolls sideways: {scroll}")
    return page, wrong


def han_glyphs(page, selector):
    "(Chinese characters in the elements, glyphs of them that the page's own font drew)."
    session = page.context.new_cdp_session(page)
    for domain in ("DOM", "CSS"): session.send(f"{domain}.enable")
    root = session.send("DOM.getDocument", {"depth": 1})["root"]["nodeId"]
    nodes = session.send("DOM.querySelectorAll", {"nodeId": root, "selector": selector})["nodeIds"]
    fonts = [f for n in nodes for f in session.send("CSS.getPlatformFontsForNode", {"nodeId": n})["fonts"]]
    text = "".join(page.locator(selector).all_text_contents())
    return len(re.findall("[\u4e00-\u9fff]", text)), sum(f["glyphCount"] for f in fonts if f["isCustomFont"])


@pytest.mark.browser
@pytest.mark.parametrize("width, scheme", [(1200, "light"), (1200, "dark"), (390, "light"), (390, "dark")])
def test_page_in_chromium(chromium, folder, html, width, scheme):
    page, wrong = opened(chromium, html, width, scheme)
    assert wrong == []
    assert page.locator("img").count() == len(list((folder/"figs").glob("*.png"))) + 1 and page.locator("svg").count() >= 1
    said = page.inner_text("main")
    assert all(l in said for l in (folder/"labels.txt").read_text(encoding="utf-8").split()) and EVIL[:40] in said
    assert page.locator("td.memo").count() == len(read_report(folder)["flips"])
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).every(v => v < 60)")
    assert dark == (scheme == "dark")


@pytest.mark.browser
def test_chinese_is_drawn_with_the_font_in_the_page(chromium, html):
    page, _ = opened(chromium, html, 1200)
    for selector in ("ul.labels span[lang=zh]", "td.memo"):
        characters, drawn = han_glyphs(page, selector)
        assert 0 < characters <= drawn


@pytest.mark.browser
def test_contents_lead_somewhere(chromium, html):
    page, _ = opened(chromium, html, 1200)
    for link in page.locator("nav a").all():
        link.click()
        assert page.evaluate("document.querySelector(':target')?.tagName") == "H2"


@pytest.mark.browser
@pytest.mark.parametrize("body, words", [
    ("<script>console.error('x')</script>", "console: x"), ("<script>nothing()</script>", "exception"), ("<img alt='p' src='data:image/png;base64,AAAA'>", "broken: p"),
    ("<img alt='p' src='nowhere.png'>", "failed"), ("<link rel=stylesheet href='http://127.0.0.1:9/x.css'>", "asked for"), ("<p style='width: 900px'>wide</p>", "sideways")])
def test_the_browser_notices(chromium, tmp_path, body, words):
    (tmp_path/"bad.html").write_text(f"<!DOCTYPE html><link rel=icon href='data:,'>{body}")
    assert any(words in w for w in opened(chromium, tmp_path/"bad.html", 390)[1])


@pytest.mark.browser
def test_boxes_are_noticed(chromium, html, tmp_path):
    (tmp_path/"bare.html").write_text(re.sub(r"@font-face.*", "", html.read_text(encoding="utf-8")), encoding="utf-8")
    characters, drawn = han_glyphs(opened(chromium, tmp_path/"bare.html", 1200)[0], "td.memo")
    assert drawn < characters
