"The ladder on the bundled model made hard to quantize: the layers at fault are found, the first step that passes is kept, and none that fails."
import numpy as np, pytest, torch

from memo_bert.core import MemoBertError, ModelFolder
from memo_bert.data import load_data
from memo_bert.finetune import place, read_model
from memo_bert.ladder import layer_errors, mend
from memo_bert.quantize import calibration_feeds, convert, finish
from memo_bert.to_tf import saved_model


@pytest.fixture(scope="module")
def sick(tmp_path_factory):
    "A folder with the bundled classifier in which one value channel is 300 times as loud, and the next layer 300 times as deaf to it."
    net, tokenizer = read_model("memo")
    layer = net.base_model.encoder.layer[2].attention
    with torch.no_grad():
        layer.self.value.weight[5] *= 300; layer.self.value.bias[5] *= 300; layer.output.dense.weight[:, 5] /= 300
    folder = ModelFolder("sick", root=tmp_path_factory.mktemp("ladder"))
    place(folder, net, tokenizer, step="finetune", source="test")
    return folder


def test_finds_the_layers_at_fault(sick):
    source, feeds = saved_model(sick, 32), calibration_feeds(sick, 32, "memo", 36)
    exact, rounded = convert(source, "fp32"), finish(convert(source, "int8", feeds), "int8", "2.21", feeds)
    errors = layer_errors(exact, rounded, {k: v[:12] for k, v in feeds.items()})
    assert set(errors.own_db.nsmallest(2).index) == {"layer.2/attention/self/value", "layer.2/attention/output/dense"}
    assert np.isfinite(errors[["snr_db", "cosine", "own_db"]]).all().all()


def test_first_step_that_passes_is_kept(sick):
    val = load_data()["val"].sample(300, random_state=0)
    path, steps = mend(sick, val.text, val.label, "fp16", seq_len=32)
    assert path.exists() and steps.verdict.tolist() == ["pass"] and sick.row("tflite/model_fp16_gated.tflite")["params"]["mended_by"] == "fp16"


def test_nothing_passes(sick):
    val = load_data()["val"].head(3)
    with pytest.raises(MemoBertError, match="No step of fp32 passes"): mend(sick, val.text, val.label, "fp32", seq_len=32)
    assert not (sick/"tflite/model_fp32_gated.tflite").exists()
