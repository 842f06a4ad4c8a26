"Quantization-aware training on small models, and its scales in the files."
import numpy as np, pytest, torch
from transformers import AutoTokenizer, ErnieConfig, ErnieForSequenceClassification
from memo_bert.core import MemoBertError, ModelFolder, assets
from memo_bert.export import encode, torch_outputs
from memo_bert.finetune import memo_stream
from memo_bert.heads import JointErnie, output_names
from memo_bert.learned_scales import check_scales, learned_scales, read_scales
from memo_bert.qat import FILE, Fake, fake_quantize, place_scaled, plain, qat, read_scaled, simulated, taught_by
from memo_bert.quantize import run_tflite, tflite_file
from memo_bert.quantize_onnx import pc_file, run_onnx
from memo_bert.runtime_floor import Edit

MEMOS = ["明天下午三点开会", "买两斤苹果和牛奶", "背五十个单词", "给妈妈打电话", "房租三千二已付", "周五复查牙齿", "高铁票改签到九点", "把阳台的花浇了"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.fixture(scope="module")
def tokenizer(): return AutoTokenizer.from_pretrained(assets("memo/model.safetensors").parent)


def small(kind, vocab):
    torch.manual_seed(0)
    config = ErnieConfig(vocab_size=vocab, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, hidden_act="gelu_new", max_position_embeddings=400, type_vocab_size=2,
                         use_task_id=False, pad_token_id=0, initializer_range=.2, id2label=dict(enumerate("甲乙丙")), label2id={l: i for i, l in enumerate("甲乙丙")}, slot_labels=["O", "B-time", "I-time"])
    net = (JointErnie if kind == "joint" else ErnieForSequenceClassification)(config)
    with torch.no_grad():
        for layer in net.ernie.encoder.layer:   # a head and some neurons cut, as pruning leaves them; a loud channel
            layer.attention.output.dense.weight[:, :12] = 0
            layer.output.dense.weight[:, 5:20] = 0
            layer.output.dense.weight[3] *= 30
    return net.eval()


def batches(tokenizer): return memo_stream(MEMOS*4, np.arange(32) % 3, tokenizer, 8, np.random.default_rng(0), 16)


@pytest.fixture(scope="module", params=["label", "joint"])
def folder(request, tokenizer, tmp_path_factory):
    net = small(request.param, len(tokenizer))
    fake, losses = qat(net, batches(tokenizer), 4, 1e-3, "learned", taught_by(net), calibration=2)
    assert np.isfinite(losses).all()
    return place_scaled(ModelFolder(request.param, root=tmp_path_factory.mktemp("qat")), fake, tokenizer, step="finetune", of="tests")


def test_fakes_leave_the_model_alone_and_learn(tokenizer):
    net = small("label", len(tokenizer))
    before = {n: v.clone() for n, v in net.state_dict().items()}
    fake, _ = qat(net, batches(tokenizer), 3, 1e-3, loss_of=taught_by(net), calibration=2)
    assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items())
    fakes = [m for m in fake.modules() if isinstance(m, Fake)]
    assert all(f.log.abs().max() > 0 for f in fakes if f.log is not None)
    assert fake.ernie.encoder.layer[0].output.dense.fake_output.is_per_channel   # the loud channel
    qkv = fake.ernie.encoder.layer[0].attention.self
    assert qkv.query.fake_input is qkv.key.fake_input is qkv.value.fake_input


def test_observed_scales_follow_the_weights(tokenizer):
    fake, _ = qat(small("label", len(tokenizer)), batches(tokenizer), 3, 1e-3, "observed", calibration=2)
    net, scales = plain(fake)
    assert not any("log" in n for n, _ in fake.named_parameters())
    w, s = net.classifier.weight.detach(), scales["classifier.weight"]
    assert torch.allclose((w/s[:, None]).abs().amax(1), torch.tensor(127.), atol=1.)   # the widest weight of a row takes the last step
    with pytest.raises(MemoBertError, match="choose one of: learned, observed"): fake_quantize(net, [], "guessed")


def test_checkpoint_is_ordinary_and_lies_on_its_grid(folder, tokenizer):
    net, scales = read_scaled(folder.path)
    assert net.ernie.encoder.layer[0].attention.self.num_attention_heads == 3   # zero heads stayed zero
    for n, l in learned_scales(folder.path).items(): assert np.array_equal(l.floats.astype(np.float32), net.state_dict()[f"{n}.weight"].numpy())
    assert set(folder.row(FILE)["parents"]) == {"model.safetensors"}
    x = next(batches(tokenizer))
    again, _ = plain(simulated(net, scales))
    assert all(torch.equal(v, net.state_dict()[n]) for n, v in read_scaled(folder.path)[0].state_dict().items())
    assert set(again.state_dict()) == set(net.state_dict()) and torch.isfinite(again(**x).loss)


def test_scales_of_another_checkpoint_are_refused(folder, tmp_path):
    import shutil
    from safetensors.torch import load_file, save_file
    shutil.copytree(folder.path, tmp_path/"copy")
    state = load_file(tmp_path/"copy/model.safetensors")
    name = next(n for n in state if n.endswith("value.weight"))
    save_file(state | {name: state[name]*1.01}, tmp_path/"copy/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MemoBertError, match=f"does not lie on its grid"): read_scaled(tmp_path/"copy")
    (tmp_path/"copy"/FILE).unlink()
    with pytest.raises(MemoBertError, match="has no scales.safetensors"): read_scaled(tmp_path/"copy")


def test_files_have_the_scales_and_the_numbers(folder, tokenizer, tmp_path):
    net, scales = read_scaled(folder.path)
    feeds = encode(tokenizer, MEMOS, 16)
    want, plain_ = torch_outputs(simulated(net, scales), feeds), torch_outputs(net, feeds)
    files = {"int8": tflite_file(folder, "int8", 16), "dynamic_int8": tflite_file(folder, "dynamic_int8", 16), "onnx": pc_file(folder, "int8", 16)}
    n = sum(v.numel() for k, v in scales.items() if not k.endswith("_zero"))
    for name, f in files.items():
        assert check_scales(folder.path, f) > .5*n
        got = (run_onnx if name == "onnx" else run_tflite)(f, feeds)
        for o in output_names(net):
            real = feeds["attention_mask"] == 1 if want[o].ndim == 3 else slice(None)
            near, noise = np.abs(got[o] - want[o])[real].mean(), np.abs(plain_[o] - want[o])[real].mean()
            assert near < (.35*noise if name != "dynamic_int8" else 2*noise), (name, o, near, noise)
    assert FILE in files["int8"].name or FILE in folder.row("tflite/model_int8.tflite")["parents"]
    broken = tmp_path/"broken.tflite"
    broken.write_bytes(twisted(files["dynamic_int8"].read_bytes()))
    with pytest.raises(MemoBertError, match="broken.tflite, tensor .*the scale of"): check_scales(folder.path, broken)
    if "ernie" in str(type(net)).lower(): assert len([l for l in read_scales(files["onnx"]).values() if not l.table]) == len([l for l in learned_scales(folder.path).values() if not l.table])


def twisted(data):
    edit = Edit(data)
    g = edit.model.subgraphs[0]
    op = next(o for o in g.operators if edit.name(o) == "FULLY_CONNECTED")
    q = g.tensors[op.inputs[1]].quantization
    q.scale = [float(s)*1.01 for s in q.scale]
    return edit.bytes()
