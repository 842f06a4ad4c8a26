"""The base package alone, from its wheel, in an empty environment: it classifies, brings no training stack, and is quick to start."""
import os, subprocess, sys
from importlib import metadata
from pathlib import Path

import pytest
from memo_bert.core import side_by_side

ROOT = Path(__file__).parent.parent
HEAVY = ("tokenizers", "torch", "tensorflow", "transformers", "onnx", "pandas", "matplotlib", "ray", "sklearn")
CEILING = 150*2**20  # bytes
pytestmark = pytest.mark.install


def bare():
    "This process's environment variables but for those that lead Python to other packages."
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    "The Python of an environment that holds the wheel and what it asks for."
    home = tmp_path_factory.mktemp("base")
    def call(*command): subprocess.run([*map(str, command)], check=True, capture_output=True, cwd=home, env=bare())
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", home, ROOT)
    call(sys.executable, "-m", "venv", home/"env")
    call(home/"env/bin/python", "-m", "pip", "install", "--quiet", *home.glob("*.whl"))
    return home/"env/bin/python"


def alone(python, *arguments, **kw):
    "What a process says that sees neither this checkout nor this environment's packages."
    return subprocess.run([str(python), *arguments], capture_output=True, text=True, env=bare(), cwd=python.parent, **kw)


def test_classifies(base):
    for jobs in ("1", "2"):
        done = alone(base, base.parent/"memo-bert", "classify", "--jobs", jobs, input="打车32\n猫粮快没了\n")
        assert (done.returncode, done.stderr) == (0, "")
        assert [l.split("\t")[0] for l in done.stdout.splitlines()] == ["财务", "购物"]


def test_brings_no_training_stack(base):
    for name in HEAVY:
        assert "ModuleNotFoundError" in alone(base, "-c", f"import {name}").stderr


def test_what_is_missing_is_said_in_a_sentence(base):
    done = alone(base, base.parent/"memo-bert", "classify", "--backend", "litert", "--model", "x.tflite", "开会")
    assert done.returncode == 1 and done.stderr.startswith("memo-bert: ") and done.stderr.count("\n") == 1
    done = alone(base, "-c", "from memo_bert.cluster import _ray; _ray()")
    assert "pip install 'memo_bert[ray]'" in done.stderr


def sizes(base, bytecode=True):
    "{package: bytes of its files as installed} but for pip and setuptools; `bytecode`: with the .pyc files that pip writes."
    site, = base.parent.parent.glob("lib/python*/site-packages")
    size = lambda d: sum(p.stat().st_size for f in d.files if (p := site/f).is_file() and (bytecode or p.suffix != ".pyc"))
    return {d.metadata["Name"]: size(d) for d in metadata.distributions(path=[str(site)]) if d.metadata["Name"] not in ("pip", "setuptools")}


def test_size(base, capsys):
    "Under 150 MiB, of which numpy and onnxruntime are nine tenths; in MB it is 153 with the bytecode that pip writes and 132 without (numpy 2.4.6, onnxruntime 1.31.1, Linux x86-64)."
    size, plain = sizes(base), sum(sizes(base, bytecode=False).values())
    total, share = sum(size.values()), (size["numpy"] + size["onnxruntime"])/sum(size.values())
    with capsys.disabled():
        print(f"\n{total/1e6:.1f} MB, {total/2**20:.1f} MiB; without bytecode {plain/1e6:.1f} MB;", ", ".join(f"{n} {v/1e6:.1f}" for n, v in sorted(size.items(), key=lambda x: -x[1]) if v > 1e5), f"; numpy and onnxruntime {share:.0%}")
    assert total < CEILING and size["memo_bert"] < 10e6


def test_what_comes_with_a_clone_is_said(base):
    done = alone(base, "-c", "from memo_bert.core import assets; assets('corpus/val.jsonl')")
    assert done.returncode == 1 and "corpus/val.jsonl is not in the installed package; it comes with a clone" in done.stderr


def test_starts_quickly(base, capsys):
    first = "from memo_bert.classify import MemoClassifier; MemoClassifier()('开会')"
    took = side_by_side({"numpy": lambda: alone(base, "-c", "import numpy", check=True), "label": lambda: alone(base, "-c", first, check=True)}, rounds=9, warmup=1)
    ratio = sorted(took["label"])[4]/sorted(took["numpy"])[4]
    with capsys.disabled(): print(f"\nimport, load and first label take {ratio:.1f} times as long as import numpy (medians of 9 in turn)")
    assert ratio < 5
