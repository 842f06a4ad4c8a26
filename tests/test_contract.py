"What an app may rely on: names, order and dtypes of the inputs, what padding and batches change, and one manifest for all files."
import shutil

import pytest
from transformers import AutoTokenizer

from memo_bert.classify import MemoClassifier
from memo_bert.core import MemoBertError, ModelFolder, assets, check_manifest, read_manifest
from memo_bert.data import load_data
from memo_bert.export import INPUTS, encode, onnx_file
from memo_bert.quantize import MODES, run_tflite, tflite_signature
from memo_bert.quantize_onnx import RECIPES, open_onnx, run_onnx
from memo_bert.variance import against, free_batch, run_batches

FILES = [f"tflite/model_{m}.tflite" for m in MODES] + ["onnx/model.onnx", *(f"onnx/model_{r}.onnx" for r in RECIPES)]


@pytest.fixture(scope="module")
def feeds():
    memos = load_data()["val"].text.sample(64, random_state=0).tolist()
    return {n: encode(AutoTokenizer.from_pretrained(assets("memo")), memos, n) for n in (32, 64)}


def logits(path, x): return (run_tflite if path.suffix == ".tflite" else run_onnx)(path, x)["logits"]


@pytest.mark.parametrize("file", FILES)
def test_names_order_and_dtypes(chain, file):
    path = chain[0]/file
    if path.suffix == ".onnx": assert [(i.name, i.type) for i in open_onnx(path).get_inputs()] == [(n, "tensor(int64)") for n in INPUTS]
    else: assert tflite_signature(path) == ({n: ("int32", [1, 32]) for n in sorted(INPUTS)}, {"logits": ("float32", [1, 12])})


@pytest.mark.parametrize("file", [f for f in FILES if "int16x8" not in f])
def test_swapping_mask_and_segments_changes_answers(chain, feeds, file):
    x = feeds[32]
    swapped = x | dict(attention_mask=x["token_type_ids"], token_type_ids=x["attention_mask"])
    changed = against(logits(chain[0]/file, swapped), logits(chain[0]/file, x))
    assert changed["flips"] > 10 and changed["largest"] > 1


@pytest.mark.parametrize("file, most, flips", [("model_free.onnx", 1e-4, 0), ("model_int8.onnx", .5, 1), ("model_quint8_avx2.onnx", .5, 1)])
def test_padding_on_the_right(chain, feeds, file, most, flips):
    path, n = chain[0]/"onnx"/file, feeds[32]["attention_mask"].sum(1)
    own = run_batches(open_onnx(path), feeds[32], longest=True)
    padded = against(run_batches(open_onnx(path), feeds[32]), own)
    assert n.min() < 32 and padded["largest"] < most and padded["flips"] <= flips


@pytest.mark.parametrize("file, most", [("model_free.onnx", 1e-4), ("model_int8.onnx", .6)])
def test_a_batch_of_32(chain, feeds, tmp_path, file, most):
    session = open_onnx(free_batch(chain[0]/"onnx"/file, tmp_path/"batch.onnx"))
    changed = against(run_batches(session, feeds[32], 32), run_batches(session, feeds[32]))
    assert changed["largest"] < most and changed["flips"] <= 1


def test_manifest_lists_what_the_folder_holds(chain):
    m = read_manifest(chain[0])
    assert set(FILES) | {"labels.txt", "tokenizer.json", "vocab.txt", "model.safetensors"} <= set(m["files"])
    assert m["labels"] == (chain[0]/"labels.txt").read_text(encoding="utf-8").split() and m["max_tokens"] == 32
    check_manifest(chain[0], *m["files"])


def test_bundled_manifest_is_true():
    listed = read_manifest(assets("memo"))["files"]
    assert {"onnx/model_int8.onnx", "labels.txt", "tokenizer.json", "vocab.txt"} <= set(listed)
    check_manifest(assets("memo"), *listed)


@pytest.mark.parametrize("file", ["labels.txt", "tokenizer.json", "normalize.json", "onnx/model_int8.onnx"])
def test_a_mixed_set_is_refused(tmp_path, file):
    home = shutil.copytree(assets("memo"), tmp_path/"mixed")
    with open(home/file, "ab") as f: f.write(b"\n")
    with pytest.raises(MemoBertError, match=f"{file} is not the file in the manifest of mixed"): MemoClassifier(home)


def test_a_stranger_is_refused(tmp_path):
    home = shutil.copytree(assets("memo"), tmp_path/"home")
    (home/"onnx/model_int8.onnx").rename(home/"onnx/model.onnx")
    with pytest.raises(MemoBertError, match="onnx/model.onnx is not in the manifest"): MemoClassifier(home)
    (home/"manifest.json").write_text("{")
    with pytest.raises(MemoBertError, match="is damaged"): MemoClassifier(home)


def test_a_new_checkpoint_outdates_its_files(tmp_path):
    folder = ModelFolder("memo", root=tmp_path)
    onnx_file(folder, 32)
    check_manifest(folder.path, "onnx/model.onnx")
    folder.build("model.safetensors", lambda tmp: tmp.write_bytes((folder/"model.safetensors").read_bytes() + b" "), step="finetune", source="another")
    with pytest.raises(MemoBertError, match="onnx/model.onnx is not in the manifest"): check_manifest(folder.path, "onnx/model.onnx")
