"""The same inputs give the same bytes, and the bundled PC file is the one the chain makes."""
import numpy as np
import pytest
from memo_bert.classify import MemoClassifier
from memo_bert.core import assets, sha256
from memo_bert.data import load_data


def test_same_bytes(chain):
    first, second = ({p.relative_to(root).as_posix(): sha256(p) for p in sorted(root.rglob("*")) if p.suffix in (".onnx", ".tflite")} for root in chain)
    assert len(first) == 12 and first == second


def test_bundled_file_agrees_with_the_phone():
    texts = load_data()["val"].text.tolist()[:200]
    pc = MemoClassifier()
    assert pc.path == assets("memo/onnx/model_int8.onnx")
    from memo_bert.core import ModelFolder
    from memo_bert.quantize import tflite_file
    phone = MemoClassifier(tflite_file(ModelFolder("memo"), "dynamic_int8"))
    a, b = pc.scores(texts), phone.scores(texts)
    assert (a.argmax(1) == b.argmax(1)).mean() >= .98 and np.abs(a - b).max() < .35


@pytest.mark.parametrize("mode, size", [("fp16", .51), ("dynamic_int8", .28), ("int8", .30), ("int16x8", .36)])
def test_sizes(chain, mode, size):
    bytes_of = lambda m: (chain[0]/f"tflite/model_{m}.tflite").stat().st_size
    assert bytes_of(mode) <= size*bytes_of("fp32")
