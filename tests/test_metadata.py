"The file for the phone's standard clients: what is packed in it, what is refused, and what the real clients say of it."
import zipfile

import numpy as np
import pytest
from memo_bert.core import MemoBertError
from memo_bert.metadata import CLIENTS, ask, client_ids, pack_task, read_task
from memo_bert.quantize import MODES, open_tflite
from memo_bert.runtime_floor import Edit

NAMES = ["ids", "mask", "segment_ids"]
TEXTS = ["明天下午三点开会", "鸡蛋 牛奶 挂面", "WiFi密码 Cat2026!", "", "字"*300, "买\u200b菜 café"]


def pack(root, path, mode="dynamic_int8", **how):
    return pack_task(root/f"tflite/model_{mode}.tflite", path, root/"vocab.txt", root/"labels.txt", **how)


@pytest.fixture(scope="module")
def packed(chain, tmp_path_factory):
    return pack(chain[0], tmp_path_factory.mktemp("task")/"model_task.tflite")


def edited(root, path, change):
    "The plain file with `change` made to its model object."
    edit = Edit((root/"tflite/model_dynamic_int8.tflite").read_bytes())
    change(edit.model)
    path.write_bytes(edit.bytes())
    return path


def test_zip_holds_vocabulary_and_labels(chain, packed):
    data = packed.read_bytes()
    with zipfile.ZipFile(packed) as z:
        assert z.testzip() is None and z.namelist() == ["vocab.txt", "labels.txt"]
        for e in z.infolist():
            assert e.compress_type == zipfile.ZIP_STORED and z.read(e) == (chain[0]/e.filename).read_bytes()
            assert data[e.header_offset:][:4] == b"PK\x03\x04"


@pytest.mark.parametrize("mode", MODES)
def test_names_types_and_scores(chain, tmp_path, mode):
    task = read_task(path := pack(chain[0], tmp_path/"t.tflite", mode))
    labels = (chain[0]/"labels.txt").read_text(encoding="utf-8").splitlines()
    assert task["inputs"] == {n: ("int32", [1, 32]) for n in NAMES} and task["outputs"] == {"probability": ("float32", [1, len(labels)])}
    interpreter = open_tflite(path)
    assert [d["name"] for d in interpreter.get_input_details()] == NAMES and interpreter.get_output_details()[0]["name"] == "probability"
    ids = client_ids(TEXTS[:1], task["files"]["vocab.txt"].splitlines(), 32)
    score = interpreter.get_signature_runner("serving_default")(ids=ids, mask=(ids > 0).astype(np.int32), segment_ids=ids*0)["probability"]
    assert score.sum() == pytest.approx(1, abs=1e-3) and labels[score.argmax()] == "工作"


def test_metadata_reads_back(packed):
    m = read_task(packed)["metadata"]
    graph, = m["subgraph_metadata"]
    assert m["min_parser_version"] == "1.1.0" and [t["name"] for t in graph["input_tensor_metadata"]] == NAMES
    assert [f["name"] for f in graph["input_process_units"][0]["options"]["vocab_file"]] == ["vocab.txt"]
    output, = graph["output_tensor_metadata"]
    assert output["name"] == "probability" and [(f["name"], f["type"]) for f in output["associated_files"]] == [("labels.txt", 2)]


@pytest.mark.parametrize("mode", MODES)
def test_same_bytes(chain, tmp_path, mode):
    assert pack(chain[0], tmp_path/"a.tflite", mode).read_bytes() == pack(chain[1], tmp_path/"b.tflite", mode).read_bytes()


def two_inputs(model):
    signature = model.signatureDefs[0]
    signature.inputs = [i for i in signature.inputs if i.name != b"token_type_ids"]


def other_output(model): model.signatureDefs[0].outputs[0].name = b"hidden"


@pytest.mark.parametrize("change, says", [(two_inputs, "has the inputs attention_mask int32, input_ids int32; the clients need three"),
                                          (other_output, "has the outputs hidden float32; the clients need one")])
def test_other_models_are_refused(chain, tmp_path, change, says):
    source = edited(chain[0], tmp_path/"other.tflite", change)
    with pytest.raises(MemoBertError, match=says): pack_task(source, tmp_path/"t.tflite", chain[0]/"vocab.txt", chain[0]/"labels.txt")
    assert not (tmp_path/"t.tflite").exists() and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name, text, says", [("labels.txt", "好\n坏\n", "scores 12 labels and labels.txt has 2"), ("labels.txt", "", "labels.txt has 0"),
                                              ("vocab.txt", "[PAD]\n好\n", r"vocab.txt has no \[CLS\], \[SEP\], \[UNK\]"), ("vocab.txt", None, "vocab.txt cannot be read"),
                                              ("labels.txt", b"\xff\xfe", "labels.txt is not UTF-8")])
def test_files_that_do_not_fit_are_refused(chain, tmp_path, name, text, says):
    given = {n: chain[0]/n for n in ("vocab.txt", "labels.txt")} | {name: tmp_path/name}
    if text is not None: (tmp_path/name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(MemoBertError, match=says): pack_task(chain[0]/"tflite/model_fp32.tflite", tmp_path/"t.tflite", given["vocab.txt"], given["labels.txt"])
    assert not (tmp_path/"t.tflite").exists()


@pytest.mark.parametrize("part", [0, .01, .3, .9, .995])
def test_truncated_files_are_one_sentence(chain, packed, tmp_path, part):
    for source, act in ((chain[0]/"tflite/model_dynamic_int8.tflite", lambda p: pack_task(p, tmp_path/"t.tflite", chain[0]/"vocab.txt", chain[0]/"labels.txt")), (packed, read_task)):
        data = source.read_bytes()
        (tmp_path/"cut.tflite").write_bytes(data[:int(len(data)*part)])
        with pytest.raises(MemoBertError, match="cut.tflite") as e: act(tmp_path/"cut.tflite")
        assert "\n" not in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == ["cut.tflite"]


def test_plain_file_has_no_metadata(chain):
    with pytest.raises(MemoBertError, match="has no TFLITE_METADATA"): read_task(chain[0]/"tflite/model_fp32.tflite")


def test_client_tokens_are_ours_for_plain_memos(packed):
    from memo_bert.core import assets
    from memo_bert.data import load_data
    from tokenizers import Tokenizer
    ours, vocab = Tokenizer.from_file(str(assets("memo/tokenizer.json"))), assets("memo/vocab.txt").read_text(encoding="utf-8").splitlines()
    ours.enable_padding(length=128); ours.enable_truncation(128)
    texts = load_data()["test"].text.tolist()
    same = (client_ids(texts, vocab) == [ours.encode(t).ids for t in texts]).all(1)
    assert same.mean() > .99
    cleaned = [ours.normalizer.normalize_str(t) for t in texts]
    np.testing.assert_array_equal(client_ids(cleaned, vocab), [ours.encode(t).ids for t in texts])


@pytest.mark.clients
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("mode", ["fp32", "dynamic_int8"])
def test_real_client(chain, tmp_path, client, mode):
    path = pack(chain[0], tmp_path/"t.tflite", mode)
    task = read_task(path)
    vocab, labels = (task["files"][f].splitlines() for f in ("vocab.txt", "labels.txt"))
    got = np.array([[a[l] for l in labels] for a in ask(client, path, TEXTS)])
    runner, ids = open_tflite(path).get_signature_runner("serving_default"), client_ids(TEXTS, vocab, 32)
    want = np.concatenate([runner(ids=x[None], mask=(x[None] > 0).astype(np.int32), segment_ids=x[None]*0)["probability"] for x in ids])
    assert np.abs(got - want).max() < .03
    assert (got.argmax(1) == want.argmax(1)).all()


@pytest.mark.clients
@pytest.mark.parametrize("client", CLIENTS)
def test_real_client_refuses_the_plain_file(chain, client):
    with pytest.raises(MemoBertError, match="does not take model_fp32.tflite"): ask(client, chain[0]/"tflite/model_fp32.tflite", TEXTS[:1])
