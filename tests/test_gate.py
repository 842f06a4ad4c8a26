"The command `memo-bert gate` on real files: exit codes and sentences."
import json, shutil, subprocess, sys

import pytest

from memo_bert.command import main
from memo_bert.core import assets


def gate(*args):
    code = "import sys; from memo_bert.command import main; sys.exit(main(['gate', *sys.argv[1:]]))"
    return subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    "A data folder whose test split has forty memos."
    from memo_bert.data import load_data
    folder = tmp_path_factory.mktemp("few")
    splits = load_data()
    for name, frame in dict(train=splits["train"], val=splits["val"], test=splits["val"][:40]).items():
        frame[["text", "label"]].to_json(folder/f"{name}.jsonl", orient="records", lines=True, force_ascii=False)
    return folder


def test_pass_and_too_few(chain, few):
    file = chain[0]/"tflite/model_dynamic_int8.tflite"
    out = gate(file, "--json")
    said = json.loads(out.stdout)
    assert (out.returncode, said["verdict"], out.stderr) == (0, "pass", "")
    assert said["checks"]["flips"]["high"] <= .03 and len(said["worst"]) == 10
    out = gate(file, "--data", few, "--split", "test")
    assert out.returncode == 3 and out.stdout.startswith("not enough memos to tell: flips")


def test_fails(chain, tmp_path):
    for f in ("tokenizer.json", "tokenizer_config.json", "config.json", "labels.txt"): shutil.copy(chain[0]/f, tmp_path)
    file = shutil.copy(chain[0]/"onnx/model_int8.onnx", tmp_path)
    names = (tmp_path/"labels.txt").read_text(encoding="utf-8").splitlines()
    (tmp_path/"labels.txt").write_text("\n".join(names[1::-1] + names[2:]) + "\n", encoding="utf-8")
    out = gate(file, "--reference", chain[0]/"tflite/model_fp32.tflite")
    assert out.returncode == 1 and out.stdout.startswith("fail: flips")


@pytest.mark.parametrize("args, sentence", [
    (["nowhere.tflite"], "There is no file nowhere.tflite"),
    ([assets("memo/onnx/model_int8.onnx"), "--limit", "flip", "0.01"], "choose one of: flips"),
    ([assets("memo/onnx/model_int8.onnx"), "--limit", "flips", "3"], "between 0 and 1"),
    ([assets("memo/onnx/model_int8.onnx"), "--split", "dev"], "choose one of: train"),
])
def test_bad_input(args, sentence, capsys):
    assert main(["gate", *map(str, args)]) == 1
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1
