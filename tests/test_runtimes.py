"""Files written for an old TFLite run on it: the wheels themselves, in environments of their own (pytest -m runtimes)."""
import numpy as np
import pytest
from transformers import AutoTokenizer
from memo_bert.core import MemoBertError, assets
from memo_bert.data import load_data
from memo_bert.export import encode
from memo_bert.quantize import quantize, run_tflite
from memo_bert.runtime_floor import RUNTIMES, lower, op_versions, python_for, release, run_on, runtime_floor

MODES = ("fp32", "fp16", "dynamic_int8", "int8")


@pytest.fixture(scope="module")
def feeds(): return encode(AutoTokenizer.from_pretrained(assets("memo")), load_data()["val"].text.tolist()[:60], 32)


@pytest.fixture(scope="module")
def lowered(chain, tmp_path_factory):
    home = tmp_path_factory.mktemp("lowered")
    for m in MODES: (home/f"{m}.tflite").write_bytes(lower((chain[0]/f"tflite/model_{m}.tflite").read_bytes(), "2.7"))
    return [home/f"{m}.tflite" for m in MODES]


def test_floor(chain, lowered):
    for m, p in zip(MODES, lowered):
        assert release(runtime_floor((chain[0]/f"tflite/model_{m}.tflite").read_bytes())[0]) <= (2, 9)
        assert release(runtime_floor(p.read_bytes())[0]) <= (2, 7)
        assert not op_versions(p.read_bytes()).op.isin(["GELU"]).any()


def test_refused_by_name(chain):
    with pytest.raises(MemoBertError, match="GELU on integers needs TFLite 2.9"): lower((chain[0]/"tflite/model_int16x8.tflite").read_bytes(), "2.7")
    with pytest.raises(MemoBertError, match="it has no BATCH_MATMUL version 1"): lower((chain[0]/"tflite/model_fp32.tflite").read_bytes(), "2.2")


@pytest.mark.runtimes
@pytest.mark.parametrize("runtime", [r for r in RUNTIMES if python_for(r)])
def test_loads_and_agrees(runtime, lowered, feeds):
    for path, answer in zip(lowered, run_on(runtime, lowered, feeds)):
        assert answer["loads"], answer.get("why")
        here = run_tflite(path, feeds)["logits"]
        assert (answer["output"].argmax(1) != here.argmax(1)).sum() <= 1 and np.abs(answer["output"] - here).max() < .5


@pytest.mark.runtimes
def test_the_converters_own_file_does_not_load(chain, feeds, tmp_path):
    path = quantize(chain[0]/"saved_model", tmp_path/"newest.tflite", "dynamic_int8", target_runtime="2.21")
    old, = run_on("tflite-runtime==2.14.0", [path], feeds)
    assert not old["loads"] and "FULLY_CONNECTED" in old["why"]
