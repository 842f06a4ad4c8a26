"""The command says what a model file holds, and refuses false claims and files that are none, in one sentence."""
import json, shutil, subprocess, sys

import pytest
from test_bad_input import MEMO_BERT, refused

CLAIMS = ("fp32", "fp16", "dynamic_int8", "int8", "int16x8")
HOLDS = {**{f"tflite/model_{c}.tflite": {c} for c in CLAIMS}, "onnx/model.onnx": {"fp32"},
         **{f"onnx/model_{r}.onnx": {"dynamic_int8", "int8"} for r in ("int8", "quint8_avx2")}}


def inspect(*args): return subprocess.run([*MEMO_BERT, "inspect", *map(str, args)], capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def reports(chain):
    "The JSON report of every file of the chain."
    done = {rel: inspect(chain[0]/rel, "--json", "--tokens", 32) for rel in HOLDS}
    assert all(d.returncode == 0 and d.stderr == "" for d in done.values())
    return {rel: json.loads(d.stdout) for rel, d in done.items()}


@pytest.mark.parametrize("rel, claim", [(r, c) for r, cs in HOLDS.items() for c in sorted(cs)])
def test_true_claim(chain, rel, claim):
    done = inspect(chain[0]/rel, "--expect", claim)
    assert done.returncode == 0 and done.stderr == "" and "million multiply-accumulates" in done.stdout


@pytest.mark.parametrize("rel, claim, words", [
    ("tflite/model_fp32.tflite", "int8", ("is not int8", "float32 weights multiplied in float32")),
    ("tflite/model_dynamic_int8.tflite", "int8", ("is not int8", "int8 weights multiplied in int8 per call")),
    ("tflite/model_int8.tflite", "dynamic_int8", ("is not dynamic_int8", "int8 weights multiplied in int8.")),
    ("tflite/model_fp16.tflite", "fp32", ("is not fp32", "float16 weights")),
    ("onnx/model.onnx", "fp16", ("is not fp16", "float32 weights")),
    ("onnx/model_int8.onnx", "fp32", ("is not fp32", "int8 per call")),
    ("onnx/model.onnx", "int4", ("expect is 'int4'", "choose one of: fp32, fp16, dynamic_int8, int8")),
])
def test_false_claim(chain, rel, claim, words): refused(inspect(chain[0]/rel, "--expect", claim), *words)


def test_every_claim(reports):
    from memo_bert.core import MemoBertError
    from memo_bert.inspect import expect
    def holds(report, claim):
        try: return bool(expect(report, claim))
        except MemoBertError: return False
    assert {rel: {c for c in CLAIMS if holds(r, c)} for rel, r in reports.items()} == HOLDS


def test_renamed_file(chain, tmp_path):
    shutil.copy(chain[0]/"tflite/model_fp32.tflite", tmp_path/"model_int8.tflite")
    refused(inspect(tmp_path/"model_int8.tflite", "--expect", "int8"), "model_int8.tflite is not int8")


def test_sizes_add_up(chain, reports):
    for rel, r in reports.items(): assert sum(s["bytes"] for s in r["sizes"]) == r["bytes"] == (chain[0]/rel).stat().st_size


def test_same_multiplications_in_every_file(reports):
    def by_role(r):
        roles = {}
        for p in r["macs"]["parts"]: roles[p["role"]] = roles.get(p["role"], 0) + p["macs"]
        return roles
    n, s, h, i, labels = 3, 32, 312, 1248, 12
    def want(t): return {"attention": n*(4*s*h*h + 2*s*s*h) + 2*s*h*h + 2*t*h*h + 2*t*s*h, "feed-forward": 2*h*i*(n*s + t), "head": h*h + h*labels}
    for rel, r in reports.items(): assert by_role(r) == want(s if rel == "onnx/model.onnx" else 1) and not r["macs"]["uncounted"]


def test_share_in_int8(reports):
    share = {rel: r["macs"]["int8_share"] for rel, r in reports.items()}
    assert share["tflite/model_fp32.tflite"] == share["tflite/model_fp16.tflite"] == share["onnx/model.onnx"] == 0
    assert len({round(share[f], 6) for f in ("tflite/model_int8.tflite", "tflite/model_dynamic_int8.tflite", "onnx/model_int8.onnx")}) == 1
    assert .97 < share["tflite/model_int8.tflite"] < 1
    assert reports["tflite/model_fp32.tflite"]["float_islands"] == {} and reports["tflite/model_int8.tflite"]["float_islands"]["SOFTMAX"] == 4


def test_ports_and_floor(reports):
    phone, pc = reports["tflite/model_int8.tflite"], reports["onnx/model_int8.onnx"]
    assert {(p["name"], p["dtype"]) for p in phone["ports"] if p["kind"] == "input"} == {(n, "int32") for n in ("input_ids", "attention_mask", "token_type_ids")}
    assert {(p["name"], tuple(p["shape"])) for p in pc["ports"] if p["kind"] == "output"} == {("logits", (1, 12))}
    assert phone["runtime_floor"]["release"] == "2.9" and pc["runtime_floor"]["release"] == "1.3" and pc["stamp"]["ir_version"] == 7


@pytest.mark.parametrize("name, data, words", [
    ("notes.txt", b"buy milk\n", ("looks like text",)), ("notes.tflite", b"buy milk\n", ("notes.tflite is not a TFLite file",)),
    ("notes.onnx", b"buy milk\n", ("notes.onnx",)), ("empty.onnx", b"", ("empty.onnx is empty",)), ("empty.tflite", b"", ("empty.tflite is empty",)),
])
def test_no_model(tmp_path, name, data, words):
    (tmp_path/name).write_bytes(data)
    refused(inspect(tmp_path/name), *words)


def test_folder_and_missing(tmp_path):
    refused(inspect(tmp_path), "is a folder")
    refused(inspect(tmp_path/"nothing.tflite"), "is not there")


@pytest.mark.parametrize("rel", ["tflite/model_int8.tflite", "onnx/model_int8.onnx"])
def test_cut_short(chain, tmp_path, rel):
    from memo_bert.core import MemoBertError
    from memo_bert.inspect import inspect_model
    whole, cut = (chain[0]/rel).read_bytes(), tmp_path/f"cut{rel[-7:]}"
    for n in (9, 100, len(whole)//3, len(whole)//2, len(whole) - 1000):
        cut.write_bytes(whole[:n])
        with pytest.raises(MemoBertError, match="cut"): inspect_model(cut)
    refused(inspect(cut), cut.name)


def test_needs_neither_torch_nor_tensorflow():
    code = "import sys, memo_bert.inspect; bad = {'torch', 'tensorflow', 'transformers'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    subprocess.run([sys.executable, "-c", code], check=True)
