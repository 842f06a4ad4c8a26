"Joint, token-classification and two-layer models through every file; a head that did not arrive is found by its outputs."
import numpy as np, onnx, pytest, torch, transformers
from memo_bert.classify import MemoClassifier
from memo_bert.core import MemoBertError, ModelFolder, assets
from memo_bert.data import load_data
from memo_bert.evaluate import decided, evaluate, open_outputs, parity
from memo_bert.export import UNRELATED, check_file, encode, export_onnx, real_tokens, torch_outputs
from memo_bert.finetune import read_model, save_checkpoint
from memo_bert.gate import gate
from memo_bert.graph import load_graph
from memo_bert.heads import OURS, layers, narrow, output_names, task, widen
from memo_bert.quantize import MODES, quantize, run_tflite, tflite_file
from memo_bert.quantize_onnx import pc_file, quantize_onnx, run_onnx
from memo_bert.to_tf import run_saved_model, to_saved_model

LENGTH, LABELS = 16, list("甲乙丙丁戊")
SHAPE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=32, hidden_act="gelu_new", initializer_range=.3, attn_implementation="eager")
KINDS = {"JointErnie": dict(slot_labels=["O", "B-time", "I-time"]), "JointBert": dict(slot_labels=["O", "B-time", "I-time"]), "MlpErnie": dict(head_size=16, problem_type="multi_label_classification"),
         "MlpBert": dict(head_size=16), "ErnieForTokenClassification": {}, "BertForTokenClassification": {}}
CHAIN = {"JointErnie": [*MODES], "MlpErnie": ["fp32", "dynamic_int8"], "ErnieForTokenClassification": ["fp32", "int8"]}   # the others' modes: 03k
MOST = {"onnx/model.onnx": .01, "onnx/model_fixed.onnx": .01, "saved_model": .01, "tflite/model_fp32.tflite": .01, "tflite/model_fp16.tflite": .5}   # mean difference in %
FILES = [(n, f) for n, modes in CHAIN.items() for f in ("onnx/model.onnx", "onnx/model_fixed.onnx", "saved_model", "onnx/model_int8.onnx", *(f"tflite/model_{m}.tflite" for m in modes))]


@pytest.fixture(scope="module")
def tokenizer(): return transformers.AutoTokenizer.from_pretrained(assets("memo"))


@pytest.fixture(scope="module")
def texts(): return load_data()["val"].text.sample(12, random_state=0).tolist()


def model(name, tokenizer):
    torch.manual_seed(0)
    config = (transformers.ErnieConfig if "Ernie" in name else transformers.BertConfig)(vocab_size=len(tokenizer), id2label=dict(enumerate(LABELS)), label2id={l: i for i, l in enumerate(LABELS)}, **SHAPE, **KINDS[name])
    return (OURS.get(name) or getattr(transformers, name))(config).eval()


@pytest.fixture(scope="module")
def folders(tokenizer, tmp_path_factory):
    "Model folders of their own for the models of CHAIN, with every file."
    root, made = tmp_path_factory.mktemp("heads"), {}
    for name in CHAIN:
        save_checkpoint(model(name, tokenizer), tokenizer, root/"from"/name)
        f = made[name] = ModelFolder(str(root/"from"/name), root/"outputs")
        pc_file(f, "int8", LENGTH)
        for m in CHAIN[name]: tflite_file(f, m, LENGTH, calibration=24)
    return made


@pytest.mark.parametrize("name", KINDS)
def test_there_and_back(name, tokenizer, texts, tmp_path):
    net = model(name, tokenizer)
    save_checkpoint(net, tokenizer, tmp_path/name)
    again, _ = read_model(str(tmp_path/name))
    x = encode(tokenizer, texts, LENGTH)
    want, got = torch_outputs(net, x), torch_outputs(again, x)
    assert type(again) is type(net) and list(want) == output_names(net) and all(np.array_equal(want[o], got[o]) for o in want)
    assert (tmp_path/name/"labels.txt").read_text(encoding="utf-8").split() == LABELS
    for free in (False, True):
        seen = run_onnx(export_onnx(again, tmp_path/"m.onnx", LENGTH, free=free), {k: v[:, :9] if free else v for k, v in x.items()})
        exact = torch_outputs(net, {k: v[:, :9] for k, v in x.items()}) if free else want
        mask = x["attention_mask"][:, :9] if free else x["attention_mask"]
        assert list(seen) == list(want) and all(np.abs(real_tokens(seen[o] - exact[o], mask)).max() < 1e-4 for o in want)


@pytest.mark.parametrize("name, file", FILES)
def test_parity(folders, tokenizer, texts, name, file):
    folder, x = folders[name], encode(tokenizer, texts, LENGTH)
    net, call = read_model(str(folder.path))[0], open_outputs(folder/file)
    rows = [call({k: v[i:i + 1] for k, v in x.items()}) for i in range(len(texts))]
    got, want = {o: np.concatenate([r[o] for r in rows]) for o in rows[0]}, torch_outputs(net, x)
    found = parity(got, want, x["attention_mask"], task(net))
    assert set(got) == set(want) and found["diff_percent"] <= MOST.get(file, 20)
    if MOST.get(file, 20) < 1: assert found["flips"] == 0


def test_token_outputs_keep_every_place(folders):
    "first_token may narrow the pooled path, never what a slot head reads."
    shapes = {o.name: [d.dim_value for d in o.type.tensor_type.shape.dim] for o in load_graph(folders["JointErnie"]/"onnx/model_fixed.onnx").graph.output}
    assert shapes == {"intent_logits": [1, 5], "slot_logits": [1, LENGTH, 3]}


def test_evaluate_by_task(folders, tokenizer, texts):
    sets = [LABELS[i % 4:i % 4 + 2] for i in range(len(texts))]
    for name in CHAIN:
        f, kind = folders[name], task(read_model(str(folders[name].path))[0])
        files = {"PyTorch": f/"model.safetensors", "ONNX": f/"onnx/model.onnx"}
        table, outputs = evaluate(files, texts, sets if kind == "labels" else None, tokenizer, {l: i for i, l in enumerate(LABELS)}, LENGTH, rounds=5, task=kind)
        assert table.flips.sum() == 0 and set(outputs) == set(files)
        assert ("micro_f1" in table) == (kind == "labels") and ("slot_logits max_diff" in table) == (kind == "joint")


def test_what_a_flip_is():
    mask = np.array([[1, 1, 0], [1, 1, 1]])
    want = dict(intent_logits=np.array([[1., 0], [1, 0]]), slot_logits=np.zeros((2, 3, 2)) + [1., 0])
    other = {o: v.copy() for o, v in want.items()}
    other["slot_logits"][0, 2] = [0, 9]
    assert parity(other, want, mask)["flips"] == 0 and parity(other, want, mask)["max_diff"] == 0
    other["slot_logits"][1, 2] = [0, 9]
    assert parity(other, want, mask)["flips"] == 1
    other["intent_logits"][0] = [0, 1]
    assert parity(other, want, mask)["flips"] == 2 and parity(other, want, mask)["intent_logits max_diff"] == 1
    assert decided(dict(logits=np.array([[.1, -.1, 3]])), mask, "labels").tolist() == [[1, 0, 1]]


def reset(path, to, output):
    "The ONNX file at `path` with fresh random weights before `output`, as a conversion leaves them that did not find a head."
    m = load_graph(path)
    made, weights = {o: n for n in m.graph.node for o in n.output}, {t.name: t for t in m.graph.initializer}
    while not (n := made[output]).op_type in ("Gemm", "MatMul"): output = next(i for i in n.input if i in made)
    t = weights[n.input[1]]
    t.CopyFrom(onnx.numpy_helper.from_array(np.random.default_rng(1).normal(0, .02, t.dims).astype(np.float32), t.name))
    onnx.save(m, to)
    return to


@pytest.mark.parametrize("name, output", [("JointErnie", "slot_logits"), ("JointErnie", "intent_logits"), ("MlpErnie", "logits"), ("ErnieForTokenClassification", "logits")])
def test_a_head_that_did_not_arrive(folders, tmp_path, name, output):
    folder = folders[name]
    broken = reset(folder/"onnx/model_fixed.onnx", tmp_path/"broken.onnx", output)
    files = {"ONNX": lambda x: run_onnx(broken, x), "ONNX int8": lambda x: run_onnx(quantize_onnx(broken, tmp_path/"b.onnx"), x)}
    if output == "slot_logits":
        sm = to_saved_model(broken, tmp_path/"saved_model")
        files |= {"SavedModel": lambda x: run_saved_model(sm, x), "TFLite": lambda x: run_tflite(quantize(sm, tmp_path/"b.tflite", "dynamic_int8"), x)}
    for n, answer in files.items():
        with pytest.raises(MemoBertError, match=f"The output {output} of {n} is not the checkpoint's"): check_file(folder, n, answer, LENGTH, most=UNRELATED)
    check_file(folder, "whole", lambda x: run_onnx(folder/"onnx/model_fixed.onnx", x), LENGTH)


def test_a_conversion_that_loses_a_head_leaves_no_file(folders, tokenizer, tmp_path, monkeypatch):
    import memo_bert.to_tf as to_tf
    folder = ModelFolder(str(folders["JointErnie"].path), tmp_path)
    real = to_tf.to_saved_model
    monkeypatch.setattr(to_tf, "to_saved_model", lambda path, out: real(reset(path, tmp_path/"lost.onnx", "slot_logits"), out))
    with pytest.raises(MemoBertError, match="The output slot_logits of saved_model"): to_tf.saved_model(folder, LENGTH)
    assert not (folder/"saved_model").exists()


def test_a_missing_output_is_named(folders):
    with pytest.raises(MemoBertError, match="one.onnx has no output slot_logits; it has: intent_logits."):
        check_file(folders["JointErnie"], "one.onnx", lambda x: {k: v for k, v in run_onnx(folders["JointErnie"]/"onnx/model.onnx", x).items() if k == "intent_logits"}, LENGTH)


@pytest.mark.parametrize("keep, neurons", [((0, 2), 40), ((3,), 1)])
def test_cut_heads_leave_the_graph(tokenizer, texts, tmp_path, keep, neurons):
    net, x = model("JointErnie", tokenizer), encode(tokenizer, texts, LENGTH)
    with torch.no_grad():
        for layer in layers(net):
            for h in {0, 1, 2, 3} - {*keep}: layer.attention.output.dense.weight[:, h*8:h*8 + 8] = 0
            layer.output.dense.weight[:, neurons:] = 0
    slim = narrow(net)
    assert [(l.attention.self.num_attention_heads, l.output.dense.in_features) for l in layers(slim)] == [(len(keep), neurons)]*2
    want = torch_outputs(net, x)
    save_checkpoint(slim, tokenizer, tmp_path/"slim")
    for other in (slim, widen(slim), read_model(str(tmp_path/"slim"))[0]):
        assert all(np.abs(v - want[o]).max() < 1e-5 for o, v in torch_outputs(other, x).items())
    path = export_onnx(net, tmp_path/"m.onnx", LENGTH)
    assert all(np.abs(v - want[o]).max() < 1e-4 for o, v in run_onnx(path, x).items())
    dims = [tuple(t.dims) for t in load_graph(path).graph.initializer]
    assert dims.count((32, 8*len(keep))) == 6 and dims.count((neurons, 32)) == 2


def test_a_plain_model_is_not_touched():
    net, _ = read_model("memo")
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), narrow(net).state_dict().values()))


@pytest.mark.parametrize("name", CHAIN)
def test_one_label_clients_refuse(folders, name):
    f = folders[name]
    for call in (lambda: MemoClassifier(f.path), lambda: gate(f/"onnx/model.onnx", f/"model.safetensors", ["买菜"], ["甲"])):
        with pytest.raises(MemoBertError, match="this is for classifiers, which give a text one label"): call()
