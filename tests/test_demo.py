"""The page of `memo-bert demo`: its server, the page in a real Chromium (-m browser), the folder in the Hugging Face libraries (-m node, -m clients)."""
import http.client, json, os, random, re, shutil, signal, subprocess, sys, time
from pathlib import Path

import numpy as np
import pytest
from memo_bert.classify import MemoClassifier
from memo_bert.core import MemoBertError, assets, entry, write_manifest
from memo_bert.data import GLOSS, load_data
from memo_bert.tokens import node_modules
from memo_bert.demo import HEADERS, MODEL, PAGE, PageServer, page_files, serving

ROOT = Path(__file__).parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VAL = load_data()["val"].text.tolist()


def certify(folder):
    "Give a model folder the manifest of what is in it."
    files = {p.relative_to(folder).as_posix(): entry(p) for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "manifest.json"}
    write_manifest(folder, files | {"onnx/model_int8.onnx": files["onnx/model_int8.onnx"] | dict(lengths=[1, 128])}, score=.7)


@pytest.fixture
def folder(tmp_path):
    "The bundled model's folder with its manifest, to be spoilt."
    home = tmp_path/"memo"
    for f in ("config.json", "tokenizer_config.json", *MODEL[1:]):
        (home/f).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(assets("memo", f), home/f)
    certify(home)
    return home


def without_libraries(folder):
    "The table of addresses without what npm brings."
    return {f"/{f}": assets("demo", f) for f in PAGE} | {"/": assets("demo/index.html"), "/model/manifest.json": folder/"manifest.json", "/model/onnx/model_int8.onnx": folder/"onnx/model_int8.onnx"}


def get(url, path, method="GET"):
    "(status, headers, body) of an address asked for exactly as written."
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=10)
    connection.putrequest(method, path, skip_host=False); connection.endheaders()
    answer = connection.getresponse()
    return answer.status, {n.title(): v for n, v in answer.getheaders()}, answer.read()


def test_served_as_what_it_is(folder):
    kinds = {"/": "text/html", "/app.mjs": "text/javascript", "/style.css": "text/css", "/icon.svg": "image/svg+xml", "/model/manifest.json": "application/json", "/model/onnx/model_int8.onnx": "application/octet-stream"}
    with serving(files := without_libraries(folder)) as url:
        for path, kind in kinds.items():
            status, headers, body = get(url, path)
            assert status == 200 and headers["Content-Type"].startswith(kind) and body == files[path].read_bytes()
            assert HEADERS.items() <= headers.items()
        assert get(url, "/app.mjs?v=2")[0] == 200 and get(url, "/app.mjs", "HEAD")[2] == b"" and get(url, "/", "POST")[0] == 501
        assert url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("path", ["/../settings.ini", "/%2e%2e/%2e%2e/core.py", "/model/../model/labels.txt", "//etc/passwd", "/model/", "/model", "/vendor/", "/package.json", "/model/model.safetensors", "/%00", "/app.mjs/", "/" + "a"*5000])
def test_nothing_else_is_served(folder, path):
    with serving(without_libraries(folder)) as url: assert get(url, path)[0] == 404


def test_a_file_that_went_away_is_not_found(folder):
    with serving(without_libraries(folder)) as url:
        (folder/"manifest.json").unlink()
        assert get(url, "/model/manifest.json")[0] == 404 and get(url, "/")[0] == 200


def test_bad_folders_are_one_sentence(tmp_path):
    with pytest.raises(MemoBertError, match="is not a folder; give a model folder"): page_files(tmp_path/"none")
    with pytest.raises(MemoBertError, match="has no onnx/model_int8.onnx; make it with: memo-bert run 02a_quantize_onnx"): page_files(tmp_path)


def test_a_taken_port_is_one_sentence():
    with PageServer({}) as first, pytest.raises(MemoBertError, match=f"Port {first.server_port} cannot be used .*; give another with --port"): PageServer({}, first.server_port)
    for port in (-1, 70000):
        with pytest.raises(MemoBertError, match=f"Port {port} cannot be used"): PageServer({}, port)


def test_without_npm_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path)); monkeypatch.setenv("MEMO_BERT_OUTPUTS", str(tmp_path/"out"))
    with pytest.raises(MemoBertError, match="come from npm, which is not here; install Node.js"): page_files()
    assert not list((tmp_path/"out").rglob("*.mjs")) and not list((tmp_path/"out").rglob(".part*"))


def test_the_lock_file_pins_and_names_no_registry():
    lock, wanted = (json.loads(assets("demo", f).read_text()) for f in ("package-lock.json", "package.json"))
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", v) for v in (wanted["dependencies"] | wanted["devDependencies"]).values())
    assert all(p["integrity"] and "resolved" not in p for n, p in lock["packages"].items() if n)


def test_the_page_names_no_other_host():
    for f in PAGE: assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", assets("demo", f).read_text(encoding="utf-8")), f


def test_demo_is_found_in_a_clone(): assert (ROOT/"demo").resolve() == assets("demo").resolve()


def test_glosses_are_those_of_the_corpus(): assert json.loads(assets("demo/gloss.json").read_text(encoding="utf-8")) == GLOSS


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else [])
        yield browser
        browser.close()


def opened(browser, url, width=1180, ready="#memo:enabled", **view):
    "The page, when it can be typed into, and what is wrong with it: console errors, failed or foreign requests."
    page, wrong = browser.new_context(viewport=dict(width=width, height=850), **view).new_page(), []
    page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: wrong.append(f"exception: {e}"))
    page.on("requestfailed", lambda r: wrong.append(f"failed: {r.url}"))
    page.on("request", lambda r: wrong.append(f"asked for: {r.url}") if not r.url.startswith((url, "data:", "blob:")) else None)
    page.goto(url)
    page.wait_for_selector(ready, timeout=60_000)
    return page, wrong


def until(page, expression, wanted, seconds=60):
    "Wait for a JavaScript expression to be `wanted` (Playwright's own waiting needs eval, which the page forbids)."
    end = time.monotonic() + seconds
    while (found := page.evaluate(expression)) != wanted:
        if time.monotonic() > end: raise AssertionError(f"{expression} is {found!r}, not {wanted!r}")
        page.wait_for_timeout(5)


def answer(page, memo):
    "The label that the page shows for a memo put into its field."
    page.fill("#memo", memo)
    until(page, "result.dataset.memo", memo)
    return page.inner_text("#label")


def paste(page, text):
    "What Ctrl+V does, with `text` on the clipboard."
    page.evaluate("""text => { const d = new DataTransfer(); d.setData("text", text);
        memo.dispatchEvent(new ClipboardEvent("paste", { clipboardData: d, bubbles: true, cancelable: true })); }""", text)


def listed(page, n):
    "The list's rows as (number, memo, label, score), when there are `n` and none is waiting."
    until(page, "progress.hidden && rows.childElementCount", n)
    return [tuple(row) for row in page.evaluate("[...document.querySelectorAll('#rows tr')].map(r => [...r.cells].map(c => (c.querySelector('.tag') ?? c).textContent))")]


@pytest.fixture
def url(folder):
    with serving(page_files(folder)) as url: yield url


@pytest.mark.browser
def test_types_chinese_and_reads_the_label(chromium, url):
    page, wrong = opened(chromium, url)
    page.keyboard.type("明天下午三点开会")
    until(page, "label.textContent", "工作")
    assert page.inner_text("#gloss") == "work" and page.locator("#top li").count() == 3 and re.match(r"\d+\.\d ms = ", page.inner_text("#latency"))
    assert wrong == []


@pytest.mark.browser
def test_200_memos_get_pythons_labels(chromium, folder, url):
    page, wrong = opened(chromium, url)
    here, memos = MemoClassifier(folder), VAL[:200]
    shown = [answer(page, m) for m in memos]
    assert shown == [a["label"] for a in here(memos)] and wrong == []
    scores = np.array(page.evaluate("async memos => { const c = await (await import('/memo.mjs')).openClassifier('/model/'), out = []; for (const m of memos) out.push((await c.classify(m)).scores); return out; }", memos))
    assert (scores.argmax(1) == here.scores(memos).argmax(1)).all() and np.abs(scores - here.scores(memos)).max() < .01


@pytest.mark.browser
def test_many_lines_become_a_list(chromium, folder, url):
    page, wrong = opened(chromium, url, permissions=["clipboard-read", "clipboard-write"])
    memos = [m for m in VAL if "\n" not in m][:60] + ['<img src=x onerror=alert(1)>"买",牛奶']
    paste(page, "\r\n".join(memos) + "\n\n  \n")
    page.keyboard.type("看牙医")
    rows = listed(page, len(memos))
    assert [r[1:3] for r in rows] == [(m, a["label"]) for m, a in zip(memos, MemoClassifier(folder)(memos))]
    assert page.locator("img").count() == 0 and answer(page, "看牙医") == MemoClassifier(folder)("看牙医")[0]["label"]
    page.click("th button[data-by=label]")
    labels = [r[2] for r in listed(page, len(memos))]
    assert sorted(set(labels), key=labels.index) == [l for i, l in enumerate(labels) if i == 0 or labels[i - 1] != l] and page.get_attribute("th[aria-sort]", "aria-sort") == "ascending"
    page.click("#copy")
    until(page, "rate.textContent.includes('copied')", True)
    table = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert table[0] == "memo,label,score" and len(table) == len(memos) + 1 and '"<img src=x onerror=alert(1)>""买"",牛奶"' in table[-1] and wrong == []


@pytest.mark.browser
def test_by_keyboard_alone(chromium, url):
    page, wrong = opened(chromium, url)
    keys = page.keyboard
    assert page.evaluate("document.activeElement.id") == "memo"
    keys.type("猫粮快没了"); keys.press("Enter")
    assert [r[1:3] for r in listed(page, 1)] == [("猫粮快没了", "购物")] and page.input_value("#memo") == ""
    keys.press("Enter"); keys.type("abc"); keys.press("Escape")
    until(page, "label.textContent", "—")
    assert page.input_value("#memo") == "" and len(listed(page, 1)) == 1
    reached = []
    for _ in range(7): keys.press("Tab"); reached.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.by"))
    assert reached == ["add", "copy", "clear", "n", "memo", "label", "score"]
    for _ in range(4): keys.press("Shift+Tab")
    keys.press("Enter")
    assert page.locator("#list").is_hidden() and page.evaluate("document.activeElement.id") == "memo" and wrong == []


@pytest.mark.browser
def test_half_typed_pinyin_is_left_alone(chromium, url):
    page, _ = opened(chromium, url)
    session = page.context.new_cdp_session(page)
    session.send("Input.imeSetComposition", {"text": "kaihui", "selectionStart": 6, "selectionEnd": 6})
    page.wait_for_timeout(500)
    assert page.input_value("#memo") == "kaihui" and page.inner_text("#label") == "—"
    session.send("Input.insertText", {"text": "开会"})
    until(page, "label.textContent", "工作")


@pytest.mark.browser
def test_unsure_is_said(chromium, folder, url):
    page, _ = opened(chromium, url)
    scores = MemoClassifier(folder).scores(VAL).max(1)
    assert answer(page, VAL[int(scores.argmin())]) and page.locator("#unsure").is_visible()
    assert answer(page, VAL[int(scores.argmax())]) and page.locator("#unsure").is_hidden()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(chromium, url, scheme):
    page, wrong = opened(chromium, url, width=390, color_scheme=scheme, has_touch=True, is_mobile=True)
    answer(page, "长"*300)
    paste(page, "a"*300 + "\n明天下午三点开会")
    listed(page, 2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390 and page.locator("meta[name=viewport]").count() == 1 and wrong == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).every(v => v < 60)") == (scheme == "dark")


@pytest.mark.browser
def test_any_text_gets_a_label(chromium, folder, url):
    page, wrong = opened(chromium, url)
    odd = ["\u0000\u0007", "🐱"*300, "字"*20_000, "a"*500, "[SEP][PAD]", "é"*3, "\u202e反", "𠮷野家𠮷野家", "1"*127 + "牛奶"]
    for text in odd: assert answer(page, text) == MemoClassifier(folder)(text)[0]["label"], text[:9]
    assert answer(page, " \n\t") == "—" and wrong == []


@pytest.mark.browser
def test_token_ids_are_those_of_tokenizers(chromium, folder, url):
    page, _ = opened(chromium, url)
    rng, blocks = random.Random(1), [(0x20, 0x7e), (0xa0, 0x36f), (0x600, 0x1dff), (0x2000, 0x2fff), (0x3000, 0x30ff), (0x4e00, 0x4fff), (0xfe00, 0xffef), (0x11000, 0x11fff), (0x20000, 0x2fa1f)]
    strange = VAL[:50] + ["𠮷野家", "[SEP][PAD]", "字"*500, "a"*101, ""] + ["".join(chr(rng.randint(*rng.choice(blocks))) for _ in range(rng.randint(1, 60))) for _ in range(500)]
    found = page.evaluate("async ts => { const c = await (await import('/memo.mjs')).openClassifier('/model/'); return ts.map(t => c.encode(t)); }", strange)
    client = MemoClassifier(folder)
    assert [t for t, ids in zip(strange, found) if ids != client.ids(t)] == []


def one_byte_more(folder): (folder/"labels.txt").write_bytes((folder/"labels.txt").read_bytes() + b" ")
def another_tokenizer(folder): (folder/"tokenizer.json").write_text((folder/"tokenizer.json").read_text(encoding="utf-8").replace("[UNK]", "[UNQ]", 1), encoding="utf-8")
def another_model(folder): b = bytearray((folder/"onnx/model_int8.onnx").read_bytes()); b[-9] ^= 1; (folder/"onnx/model_int8.onnx").write_bytes(b)
def no_manifest(folder): (folder/"manifest.json").unlink()
def no_labels(folder): (folder/"labels.txt").unlink()
def spoilt(folder, change):
    manifest = json.loads((folder/"manifest.json").read_text(encoding="utf-8")); change(manifest)
    (folder/"manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
def unlisted(folder): spoilt(folder, lambda m: m["files"].pop("tokenizer.json"))
def other_labels(folder): spoilt(folder, lambda m: m["labels"].reverse())
def newer(folder): spoilt(folder, lambda m: m.update(version=2))
def half(folder): (folder/"manifest.json").write_text("{")
def two_labels(folder): (folder/"labels.txt").write_text("a\nb\n"); certify(folder)


@pytest.mark.browser
@pytest.mark.parametrize("spoil, words", [
    (one_byte_more, "labels.txt is not the file"), (another_tokenizer, "tokenizer.json is not the file"), (another_model, "onnx/model_int8.onnx is not the file"), (unlisted, "tokenizer.json is not the file"),
    (no_manifest, "no manifest.json"), (no_labels, "labels.txt is missing"), (other_labels, "labels.txt has other labels"), (newer, "not a manifest of version 1"), (half, "not a manifest of version 1"), (two_labels, "12 outputs and labels.txt 2 labels")])
def test_a_mixed_set_is_refused(chromium, folder, url, spoil, words):
    spoil(folder)
    page, _ = opened(chromium, url, ready="#refused:visible")
    said = page.inner_text("#refused")
    assert words in said and said.count(".") - said.count(".txt") - said.count(".json") - said.count(".onnx") == 1 and "nothing is classified" in said
    assert page.locator("#memo").is_disabled() and page.inner_text("#label") == "—"


@pytest.mark.browser
def test_a_page_without_its_libraries_says_so(chromium, folder):
    files = page_files(folder)
    del files["/vendor/tokenizers.min.mjs"]
    with serving(files) as url: assert "did not start" in opened(chromium, url, ready="#refused:visible")[0].inner_text("#refused")


@pytest.mark.browser
def test_the_command_serves_the_page(chromium, folder):
    code = "import sys; from memo_bert.command import main; sys.exit(main())"
    running = subprocess.Popen([sys.executable, "-c", code, "demo", "--port", "0", "--model", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        url = re.search(r"http://127\.0\.0\.1:\d+/", running.stdout.readline())[0]
        assert answer(opened(chromium, url)[0], "后天去医院复查") == "健康"
        running.send_signal(signal.SIGINT)
        assert running.wait(10) == 0 and running.stderr.read() == ""
    finally: running.kill()


MODELS = {"int8": dict(dtype="int8"), "fp32": dict(dtype="fp32", model_file_name="model_free")}
IN_NODE = """
import { readFileSync } from "node:fs";
import { env, pipeline } from "@huggingface/transformers";
const { root, name, options, texts } = JSON.parse(readFileSync(0, "utf8")), config = JSON.parse(readFileSync(`${root}/${name}/config.json`));
Object.assign(env, { localModelPath: root, allowRemoteModels: false });
const ask = await pipeline("text-classification", name, { ...options, config: { ...config, model_type: "bert", architectures: ["BertForSequenceClassification"] } });
const labels = [];
for (const t of texts) labels.push((await ask(t))[0].label);
console.log(JSON.stringify(labels));
"""
IN_OPTIMUM = """
import json, sys
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer, pipeline
given = json.load(sys.stdin); folder = f"{given['root']}/{given['name']}"
model = ORTModelForSequenceClassification.from_pretrained(folder, subfolder="onnx", file_name=given["file"])
ask = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(folder))
print(json.dumps([ask(t, truncation=True)[0]["label"] for t in given["texts"]]))
"""


@pytest.fixture(scope="module")
def chain_folder():
    "The memo model's folder with its float and int8 files for any length."
    from memo_bert.core import ModelFolder
    from memo_bert.quantize_onnx import pc_file
    pc_file(folder := ModelFolder("memo"))
    return folder


def expected(folder, kind): return [a["label"] for a in MemoClassifier(folder/("onnx/model_int8.onnx" if kind == "int8" else "onnx/model_free.onnx"))(VAL[:100])]


def labels_of(command, folder, cwd=None, **given):
    "The labels that a client prints for 100 memos."
    asked = json.dumps(given | dict(root=str(folder.path.parent), name=folder.name, texts=VAL[:100]))
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return json.loads(subprocess.run([*map(str, command)], input=asked, capture_output=True, text=True, check=True, env=clean, cwd=cwd).stdout.splitlines()[-1])


@pytest.mark.node
@pytest.mark.parametrize("kind", MODELS)
def test_transformers_js_in_node(chain_folder, kind):
    found = labels_of(["node", "--input-type=module", "-e", IN_NODE], chain_folder, cwd=node_modules().parent, options=MODELS[kind])
    assert found == expected(chain_folder, kind)


@pytest.mark.clients
@pytest.mark.parametrize("kind, file", [("int8", "model_int8.onnx"), ("fp32", "model_free.onnx")])
def test_optimum(chain_folder, kind, file):
    from memo_bert.runtime_floor import side_environment
    python = side_environment((ROOT/"benchmarks/optimum.txt").read_text().split())
    assert labels_of([python, "-c", IN_OPTIMUM], chain_folder, file=file) == expected(chain_folder, kind)
