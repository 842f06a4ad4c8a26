"""Text is data; the base install is light; the wheel carries what the client needs."""
import subprocess, sys, zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from memo_bert.classify import MemoClassifier
from memo_bert.core import MemoBertError

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
    code = "import sys, memo_bert, memo_bert.classify as c; c.MemoClassifier()('开会'); bad = {'torch', 'tensorflow', 'transformers', 'pandas', 'onnx', 'fastcore'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_chapter_4_imports_nothing_from_0_to_2():
    source = (ROOT/"memo_bert/classify.py").read_text(encoding="utf-8")
    imported = {l.split()[1] for l in source.splitlines() if l.startswith(("from .", "from memo_bert", "import memo_bert"))}
    assert imported == {".core"}


def test_wheel_and_sdist(tmp_path):
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    wheel, = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {"model.safetensors", "config.json", "tokenizer.json", "vocab.txt", "labels.txt", "onnx/model_int8.onnx"}
    assert {f"memo_bert/assets/memo/{n}" for n in wanted} | {f"memo_bert/assets/corpus/{n}" for n in ("train.jsonl", "val.jsonl", "test.jsonl", "test_second.jsonl", "grammar.json")} | {"memo_bert/assets/report.html.j2"} <= names
    assert len(list(tmp_path.glob("*.tar.gz"))) == 1


def test_the_pc_file_takes_a_memo_at_its_own_length():
    pc = MemoClassifier()
    assert pc.encode("开会")["input_ids"].shape == (1, 4)
    assert pc.encode("开"*300)["input_ids"].shape == (1, pc.seq_len) == (1, 128)
