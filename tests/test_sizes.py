"The six shapes: their sizes by formula, by count and as published, and the smallest through the whole chain."
import pytest, torch
from transformers import ErnieForSequenceClassification

from memo_bert.core import MemoBertError, ModelFolder
from memo_bert.data import LABELS
from memo_bert.finetune import PRESETS, nano_config, preset_config
from memo_bert.sizes import EXACT, FLOAT, INT8, check_answers, parameters, sized

PUBLISHED = {"base": 117.9, "medium": 75.4, "mini": 26.9, "micro": 23.4, "nano": 17.9}    # millions, PaddlePaddle's model center


@pytest.mark.parametrize("name", PRESETS)
def test_parameters(name):
    config = preset_config(name, 40_000, LABELS, positions=2048)
    with torch.device("meta"): net = ErnieForSequenceClassification(config)
    assert sum(parameters(config).values()) == net.num_parameters()
    types = (2 + 3)*config.hidden_size    # the published models have 4 token and 3 task types
    if name in PUBLISHED: assert round((net.ernie.num_parameters() + types)/1e6, 1) == PUBLISHED[name]


def test_nano_is_a_preset(): assert nano_config(500, LABELS).to_dict() == preset_config("nano", 500, LABELS).to_dict()


def test_unknown_preset():
    with pytest.raises(MemoBertError, match="preset is 'tiny'; choose one of: base, medium, mini, micro, nano, pico"): sized("tiny")


def test_pico_through_the_chain(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMO_BERT_OUTPUTS", str(tmp_path))
    table, path = sized("pico", vocab_size=1000)
    assert list(table.index) == ["PyTorch", *FLOAT[:2], "TFLite fp32", "TFLite dynamic_int8", "TFLite int8", "ONNX int8", "another memo"]
    assert all(table.diff_percent[n] <= EXACT for n in FLOAT) and all(table.int8_macs[n] > .9 for n in INT8)
    home = ModelFolder("ernie_pico").path
    assert sorted(p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file()) == ["ledger.jsonl", "tflite/model_int8.tflite", "tflite/sizes.json"]
    made = path.stat().st_mtime_ns
    again, path = sized("pico", vocab_size=1000)
    assert path.stat().st_mtime_ns == made and again.equals(table)
    table.loc["TFLite int8"] = table.loc["another memo"]
    with pytest.raises(MemoBertError, match="TFLite int8 differs from PyTorch"): check_answers(table)
