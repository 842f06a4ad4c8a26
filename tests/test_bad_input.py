"""Every wrong input ends in one sentence and a non-zero exit code, and leaves nothing half-written."""
import shutil, subprocess, sys
from pathlib import Path

import pytest
from conftest import environment
from memo_bert.core import ModelFolder, assets

MEMO_BERT = [sys.executable, "-c", "import sys; from memo_bert.command import main; sys.exit(main())"]


def run(outputs, notebook, **parameters):
    args = [x for n, v in parameters.items() for x in ("-p", n, str(v))]
    return subprocess.run([*MEMO_BERT, "run", notebook, *args], capture_output=True, text=True, env=environment(outputs), stdin=subprocess.DEVNULL)


def refused(done, *words):
    said = [l for l in done.stderr.splitlines() if l.startswith("memo-bert:")]
    assert done.returncode != 0 and len(said) == 1, done.stderr[-2000:]
    assert all(w in said[0] for w in words), said[0]


def finished(outputs):
    "Files under a final name, other than the executed notebooks."
    return sorted(p.relative_to(outputs).as_posix() for p in outputs.rglob("*") if p.is_file() and "runs" not in p.parts)


@pytest.fixture
def folder(tmp_path):
    "A copy of the bundled model's files but its weights."
    home = tmp_path/"models"/"mine"
    shutil.copytree(assets("memo"), home, ignore=shutil.ignore_patterns("*.safetensors", "onnx"))
    return home


@pytest.mark.parametrize("parameters, words", [
    (dict(mode="int4"), ("mode is 'int4'", "fp32, fp16, dynamic_int8, int8, int16x8")),
    (dict(seq_len=0), ("seq_len is 0", "3 to 128")),
    (dict(seq_len=100_000), ("seq_len is 100000", "3 to 128")),
    (dict(seq_len="long"), ("seq_len is 'long'", "int")),
    (dict(mod="int8"), ("'mod'", "choose one of: model, mode")),
    (dict(model="./nowhere"), ("./nowhere is not there",)),
])
def test_parameter(tmp_path, parameters, words): refused(run(tmp_path, "02_quantize", **parameters), *words)


@pytest.mark.parametrize("notebook, parameters, words", [
    ("02_quantize", dict(target_runtime="new"), ("target_runtime is 'new'", "such as 2.7")),
    ("02d_lengths", dict(lengths="32,16"), ("'32,16'", "longer than the one before")),
    ("02d_lengths", dict(lengths="short,long"), ("'short,long'", "whole numbers")),
])
def test_parameter_of(tmp_path, notebook, parameters, words):
    refused(run(tmp_path, notebook, **parameters), *words)
    assert finished(tmp_path) == []


def test_model_without_weights(tmp_path, folder):
    refused(run(tmp_path/"out", "01_export", model=folder), "holds no weights", "model.safetensors")
    assert finished(tmp_path/"out") == []


def test_pickled_checkpoint(tmp_path, folder):
    import torch
    from safetensors.torch import load_file
    weights = {k: v.float() for k, v in load_file(assets("memo", "model.safetensors")).items()}
    torch.save(weights, folder/"pytorch_model.bin")
    refused(run(tmp_path/"out", "01_export", model=folder), "pickled checkpoint", "name the file itself")
    from memo_bert.finetune import read_model
    net, _ = read_model(str(folder/"pytorch_model.bin"))
    assert net.state_dict()["classifier.bias"].equal(weights["classifier.bias"])


@pytest.mark.parametrize("notebook, rows, words", [
    ("00a_data", {"all.csv": "text,tag\n买菜,购物\n"}, ("all.csv has no column 'label'", "text, tag")),
    ("00b_finetune", {"all.csv": "text,tag\n买菜,购物\n"}, ("all.csv has no column 'label'",)),
    ("00a_data", {"train.csv": "text,label\na,x\nb,y\n", "val.csv": "text,label\nc,x\n", "test.csv": "text,label\nd,z\n"}, ("'z' is in test but in no training memo",)),
])
def test_data(tmp_path, notebook, rows, words):
    for name, text in rows.items(): (tmp_path/name).write_text(text, encoding="utf-8")
    refused(run(tmp_path/"out", notebook, data=tmp_path/"all.csv" if "all.csv" in rows else tmp_path), *words)


@pytest.mark.parametrize("rel", ["onnx/model.onnx", "tflite/model_dynamic_int8.tflite"])
def test_truncated_file(tmp_path, chain, rel):
    "The client refuses it in words; the workbook notices that it is not the file it wrote and makes it again."
    home = tmp_path/"memo"
    shutil.copytree(chain[0], home)
    whole = (home/rel).read_bytes()
    (home/rel).write_bytes(whole[:len(whole)//3])
    done = subprocess.run([*MEMO_BERT, "classify", "--model", str(home/rel), "开会"], capture_output=True, text=True)
    refused(done, Path(rel).name, "is not the file in the manifest")
    from memo_bert.quantize import tflite_file
    tflite_file(ModelFolder("memo", tmp_path), "dynamic_int8", 32, calibration=36)
    assert (home/rel).read_bytes() == whole


@pytest.fixture
def small_disk(tmp_path):
    "A file system of 40 MB: room for the checkpoint and not for the graph."
    disk = tmp_path/"disk"; disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], capture_output=True).returncode: pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_full_disk(small_disk):
    refused(run(small_disk, "02_quantize", mode="fp32"), "The disk is full: model.onnx was not written")
    made = finished(small_disk)
    assert "memo/model.safetensors" in made and not any("onnx" in f or ".part-" in f or "tflite" in f for f in made), made
