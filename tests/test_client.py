"""Text is data; the base install is light; the wheel carries what the client needs."""
import json, shutil, subprocess, sys, tarfile, zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from memo_bert.classify import MemoClassifier
from memo_bert.core import MemoBertError, assets, read_manifest

ROOT = Path(__file__).parent.parent
classifier = MemoClassifier()


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(), max_size=200))
def test_any_string_gets_a_label(text):
    answer, = classifier(text)
    assert answer["label"] in classifier.labels and 0 < answer["score"] <= 1


@pytest.mark.parametrize("bad", [[None], [b"abc"], ["好", 3]])
def test_what_is_no_string_is_refused(bad):
    with pytest.raises(MemoBertError, match="give strings"): classifier(bad)


def test_imports_neither_torch_nor_tensorflow():
    code = "import sys, memo_bert, memo_bert.classify as c; c.MemoClassifier()('开会'); bad = {'torch', 'tensorflow', 'transformers', 'pandas', 'onnx', 'fastcore', 'tokenizers'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def home(tmp_path, manifest=True):
    "The bundled model's folder, copied, with or without its manifest."
    shutil.copytree(assets("memo"), tmp_path/"m", ignore=shutil.ignore_patterns("*.safetensors", "golden.json", *([] if manifest else ["manifest.json"])))
    return tmp_path/"m"


def without_tokenizers(folder):
    "What a process says that classifies with the model in `folder` and cannot import tokenizers."
    code = f"import sys; sys.modules['tokenizers'] = None; from memo_bert.classify import MemoClassifier; print(MemoClassifier({str(folder)!r})('开会')[0]['label'])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_without_a_table_the_library_reads(tmp_path):
    m = home(tmp_path, manifest=False)
    assert without_tokenizers(m).stdout == classifier("开会")[0]["label"] + "\n"
    (m/"normalize.json").unlink()
    assert "pip install tokenizers" in without_tokenizers(m).stderr
    assert [MemoClassifier(m).ids(t) for t in ("Café[SEP]", "字"*300, "\ud83d")] == [classifier.ids(t) for t in ("Café[SEP]", "字"*300, "\ud83d")]


def test_a_table_out_of_date_is_not_used(tmp_path):
    m = home(tmp_path)
    facts = read_manifest(m)
    del facts["files"]["normalize.json"]
    (m/"manifest.json").write_text(json.dumps(facts), encoding="utf-8")
    (m/"normalize.json").write_text("{}", encoding="utf-8")
    assert MemoClassifier(m)("开会") == classifier("开会")


def test_a_tokenizer_of_another_kind_goes_to_the_library(tmp_path):
    m = home(tmp_path, manifest=False)
    rules = json.loads((m/"tokenizer.json").read_text(encoding="utf-8"))
    rules["added_tokens"][4]["lstrip"] = True
    (m/"tokenizer.json").write_text(json.dumps(rules), encoding="utf-8")
    assert "pip install tokenizers" in without_tokenizers(m).stderr and MemoClassifier(m)("开会") == classifier("开会")


@pytest.mark.parametrize("file, text", [("normalize.json", '{"ranges": ['), ("normalize.json", "{}"), ("tokenizer.json", '{"model": {}}')])
def test_a_damaged_tokenizer_is_a_sentence(tmp_path, file, text):
    m = home(tmp_path, manifest=False)
    (m/file).write_text(text, encoding="utf-8")
    with pytest.raises(MemoBertError, match="The tokenizer of m could not be read"): MemoClassifier(m)


def test_chapter_4_imports_nothing_from_0_to_2():
    source = (ROOT/"memo_bert/classify.py").read_text(encoding="utf-8")
    imported = {l.split()[1] for l in source.splitlines() if l.startswith(("from .", "from memo_bert", "import memo_bert"))}
    assert imported == {".core"}


def test_wheel_and_sdist(tmp_path):
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    wheel, = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {"config.json", "tokenizer.json", "normalize.json", "vocab.txt", "labels.txt", "manifest.json", "golden.json", "onnx/model_int8.onnx"}
    assert {f"memo_bert/assets/memo/{n}" for n in shipped} | {"memo_bert/assets/report.html.j2", "memo_bert/assets/demo/index.html"} <= names
    of_a_clone = {"assets/memo/model.safetensors", "assets/memo/training.json", *(f"assets/corpus/{n}" for n in ("train.jsonl", "val.jsonl", "test.jsonl", "test_second.jsonl", "grammar.json"))}
    assert not {f"memo_bert/{n}" for n in of_a_clone} & names
    source, = tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as t: assert {f"memo_bert/{n}" for n in of_a_clone} <= {n.partition("/")[2] for n in t.getnames()}


def test_the_pc_file_takes_a_memo_at_its_own_length():
    pc = MemoClassifier()
    assert pc.encode("开会")["input_ids"].shape == (1, 4)
    assert pc.encode("开"*300)["input_ids"].shape == (1, pc.seq_len) == (1, 128)
