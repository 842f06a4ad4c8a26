"Pruned vocabularies, positions, heads, neurons and layers: what must stay the same does, on every head, and what cannot be says so."
import json

import numpy as np, onnx, pytest, torch
from memo_bert.core import MemoBertError, ModelFolder
from memo_bert.export import export_onnx
from memo_bert.finetune import checkpoint, make_tokenizer, nano_config, read_model, save_checkpoint
from memo_bert.heads import JointBert, JointErnie, MlpErnie, layers, narrow, output_names, widen
from memo_bert.prune import answers, corpus, cut, distill, frequent, importance, keep_layers, prune_vocab, prune_width, pruned, reorder, rewrite_tokenizer, spaced, token_counts, unknown_rate
from memo_bert.vocabulary import lint
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification, BertConfig, BertTokenizer, ErnieForSequenceClassification, ErnieForTokenClassification, ErnieModel

TEXTS = ["明天下午三点开会", "后天去医院复查", "买牛奶和鸡蛋", "给妈妈打电话", "三点去买药", "下午复查", "牛奶5块钱", "开会带电脑"]*3
CHARS = list(dict.fromkeys("".join(TEXTS))) + list("龘靐齉爨")


def tokenizer(): return make_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARS, *("##" + c for c in CHARS)], 64)


def model(cls=ErnieForSequenceClassification, **more):
    torch.manual_seed(0)
    config = nano_config(5 + 2*len(CHARS), list("甲乙丙"), positions=64)
    config.update(dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, initializer_range=.3, slot_labels=["O", "B-a", "I-a"], head_size=16) | more)
    return cls(config).eval()


HEADS = {"label": dict(), "joint": dict(cls=JointErnie), "tokens": dict(cls=ErnieForTokenClassification), "labels": dict(cls=MlpErnie, problem_type="multi_label_classification"), "encoder": dict(cls=ErnieModel)}


@torch.no_grad()
def said(net, t, texts=TEXTS):
    x = t(texts, padding=True, truncation=True, max_length=16, return_tensors="pt")
    return [a for a in answers(net, x).values()]


@pytest.mark.parametrize("head", HEADS)
def test_vocabulary_keeps_answers_bit_by_bit(head):
    net, t = model(**HEADS[head]), tokenizer()
    small, fewer, kept = prune_vocab(net, t, TEXTS, 40, 16)
    assert small.config.vocab_size == len(fewer) == 40 and small.config.max_position_embeddings == fewer.model_max_length == 16
    assert all(torch.equal(a, b) for a, b in zip(said(net, t), said(small, fewer)))
    assert [[kept[i] for i in ids] for ids in fewer(TEXTS).input_ids] == t(TEXTS).input_ids
    assert len(fewer("龘"*99, truncation=True).input_ids) == 16


def test_saved_and_read_back(tmp_path):
    small, fewer, kept = prune_vocab(model(), tokenizer(), TEXTS, 30)
    save_checkpoint(small, fewer, tmp_path)
    again, t = read_model(str(tmp_path))
    assert t(TEXTS).input_ids == fewer(TEXTS).input_ids and all(torch.equal(a, b) for a, b in zip(said(again, t), said(small, fewer)))
    assert not [f for f in lint(tmp_path) if f.severity == "error"]
    data = json.loads((tmp_path/"tokenizer.json").read_text())
    assert {a["content"]: a["id"] for a in data["added_tokens"]} == {c: data["model"]["vocab"][c] for c in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}


def test_special_tokens_at_the_end_and_a_token_that_stands_twice(tmp_path):
    "ERNIE's habits: [UNK] is the last id, [CLS] the second, and a symbol has two rows of which the tokenizer uses the later."
    rows = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "$", *CHARS, "$", "[UNK]"]
    (tmp_path/"vocab.txt").write_text("".join(r + "\n" for r in rows), encoding="utf-8")
    net = model(vocab_size=len(rows) + 20)
    net.config.architectures = ["ErnieForSequenceClassification"]
    net.save_pretrained(tmp_path)
    net, t = read_model(str(tmp_path))
    texts = TEXTS + ["$5"]*9 + ["買"]
    small, fewer, kept = prune_vocab(net, t, texts, 25)
    assert kept[fewer.convert_tokens_to_ids("$")] == len(rows) - 2 and fewer.unk_token_id == 24 and small.config.vocab_size == 25
    same = [x for x in texts if set(t(x).input_ids) <= set(kept.tolist()) - {t.unk_token_id}]
    assert "$5" in same and torch.equal(said(net, t, same)[0], said(small, fewer, same)[0])


def test_pad_id_follows():
    rows = ["[CLS]", "[SEP]", "龘", "[PAD]", "[UNK]", "[MASK]", *CHARS[:-4]]
    t = BertTokenizer(vocab={r: i for i, r in enumerate(rows)})
    small, fewer, _ = prune_vocab(model(vocab_size=len(rows), pad_token_id=3), t, TEXTS, 10)
    assert small.config.pad_token_id == fewer.pad_token_id == small.get_input_embeddings().padding_idx == 2


def test_words_fall_apart():
    t = make_tokenizer("[PAD] [UNK] [CLS] [SEP] [MASK] 咖 ##啡 咖啡 shop ##ping shopping".split())
    fewer = rewrite_tokenizer(t, [0, 1, 2, 3, 4, 8, 9])
    assert (t.tokenize("shopping"), fewer.tokenize("shopping"), fewer.tokenize("shop")) == (["shopping"], ["shop", "##ping"], ["shop"])
    assert unknown_rate(t, ["shopping shop"]) == 0 and unknown_rate(fewer, ["shopping 茶"]) == 1/3


def test_the_most_frequent_stay_and_ties_are_decided():
    t = tokenizer()
    counts = token_counts(t, ["开开会"])
    assert [t.convert_ids_to_tokens(int(i)) for i in frequent(t, counts, 7)][5:] == sorted(["开", "会"], key=t.convert_tokens_to_ids)
    assert frequent(t, counts, 9).tolist() == frequent(t, counts, 9).tolist() and len(frequent(t, counts, 10**6)) == len(t)


@pytest.mark.parametrize("head", HEADS)
def test_reordering_changes_nothing_and_cutting_makes_an_ordinary_model(head, tmp_path):
    net, t = model(**HEADS[head]), tokenizer()
    found = importance(net, t, TEXTS)
    assert found["heads"].shape == (3, 4) and found["neurons"].shape == (3, 64) and (found["heads"] > 0).all()
    ordered = reorder(net, found)
    assert max((a - b).abs().max() for a, b in zip(said(net, t), said(ordered, t))) < 1e-3
    assert max((a - b).abs().max() for a, b in zip(said(cut(ordered, 1.), t), said(ordered, t))) == 0
    thin = cut(ordered, .5)
    assert [(l.attention.self.num_attention_heads, l.output.dense.in_features) for l in layers(thin)] == [(2, 32)]*3
    save_checkpoint(thin, t, tmp_path)
    again, _ = read_model(str(tmp_path))
    assert max((a - b).abs().max() for a, b in zip(said(again, t), said(thin, t))) < 1e-3
    assert sum(p.numel() for p in narrow(again).parameters()) == sum(p.numel() for p in thin.parameters())


def test_importance_finds_dead_heads_and_neurons():
    net = model()
    layers(net)[1].attention.output.dense.weight.data[:, 12:24] = 0
    layers(net)[2].output.dense.weight.data[:, 7] = 0
    found = importance(net, tokenizer(), TEXTS)
    assert found["heads"][1].argmin() == 1 and found["neurons"][2].argmin() == 7 and found["heads"][1, 1] == found["neurons"][2, 7] == 0
    ordered = reorder(net, found)
    assert (layers(ordered)[1].attention.output.dense.weight[:, -12:] == 0).all()


def test_graph_is_small(tmp_path):
    net = cut(reorder(model(), importance(model(), tokenizer(), TEXTS)), .25)
    export_onnx(widen(net), tmp_path/"m.onnx", 64)
    stored = sum(np.prod(i.dims) for i in onnx.load(tmp_path/"m.onnx").graph.initializer if i.data_type == onnx.TensorProto.FLOAT)
    assert .9 < stored/sum(p.numel() for p in net.parameters()) <= 1  # equal biases are stored once


@pytest.mark.parametrize("head", HEADS)
def test_distillation_comes_nearer(head):
    net, t = model(**HEADS[head], initializer_range=.1), tokenizer()
    rows = lambda n: said(prune_width(net, t, TEXTS, .5, 2, n, lr=2e-3), t)
    far = [sum((a - b).square().mean().item() for a, b in zip(r, said(net, t))) for r in (rows(0), rows(30))]
    assert far[1] < far[0]


def test_layers():
    assert spaced(4, 2) == [0, 3] and spaced(6, 3) == [0, 3, 5] and spaced(4, 4) == [0, 1, 2, 3]
    net = keep_layers(model(), 2)
    assert net.config.num_hidden_layers == len(layers(net)) == 2
    assert torch.equal(layers(net)[1].output.dense.weight, layers(model())[2].output.dense.weight)


def folder_of(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMO_BERT_OUTPUTS", str(tmp_path/"outputs"))
    (tmp_path/"texts.txt").write_text("".join(t + "\n" for t in TEXTS), encoding="utf-8")
    save_checkpoint(model(), tokenizer(), tmp_path/"full")
    return str(tmp_path/"full"), str(tmp_path/"texts.txt")


def test_pruned_folder(tmp_path, monkeypatch):
    full, data = folder_of(tmp_path, monkeypatch)
    how = dict(max_vocab_size=40, max_seq_length=32, width=.5, layers=2, steps=2)
    folder = pruned(full, "small", data, **how)
    row = folder.row("model.safetensors")
    assert row["step"] == "prune" and row["params"]["width"] == .5 and (folder/"manifest.json").exists()
    net, t = AutoModelForSequenceClassification.from_pretrained(folder.path, attn_implementation="eager").eval(), AutoTokenizer.from_pretrained(folder.path)
    ours, _ = read_model(str(folder.path))
    assert torch.equal(said(net, t)[0], said(ours, t)[0]) and net.config.num_hidden_layers == 2 and net.config.intermediate_size == 32
    assert [l.attention.self.num_attention_heads for l in layers(narrow(ours))] == [2, 2]
    before = (folder/"model.safetensors").stat().st_mtime_ns
    assert pruned(full, "small", data, **how).row("model.safetensors") == row and checkpoint(ModelFolder("small")) and (folder/"model.safetensors").stat().st_mtime_ns == before
    assert pruned(full, "small", data, **how | dict(steps=3)).row("model.safetensors")["sha256"] != row["sha256"]


BAD = {"max_vocab_size is 5": dict(max_vocab_size=5), "width is 0": dict(width=0), "width is 1.5": dict(width=1.5), "layers is 4": dict(layers=4), "max_seq_length is 65": dict(max_seq_length=65),
       "max_seq_length is 2": dict(max_seq_length=2), "is not there": dict(data="nothing.txt"), "folder of the model itself": dict(name="full")}


@pytest.mark.parametrize("says", BAD)
def test_bad_input(says, tmp_path, monkeypatch):
    full, data = folder_of(tmp_path, monkeypatch)
    with pytest.raises(MemoBertError, match=says): pruned(**(dict(model=full, name="small", data=data) | BAD[says]))
    assert not (tmp_path/"outputs/small").exists()


def test_corpus(tmp_path):
    (tmp_path/"few.txt").write_text("一\n二\n", encoding="utf-8"); (tmp_path/"gbk.txt").write_bytes("会议\n".encode("gbk")*20)
    with pytest.raises(MemoBertError, match="holds 2 texts"): corpus(tmp_path/"few.txt")
    with pytest.raises(MemoBertError, match="not UTF-8"): corpus(tmp_path/"gbk.txt")
    with pytest.raises(MemoBertError, match="no tokens to count"): prune_vocab(model(), tokenizer(), [], 30)


def test_other_vocabularies_are_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    t = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0, "[UNK]": 1}, [])), unk_token="[UNK]")
    with pytest.raises(MemoBertError, match="BPE"): rewrite_tokenizer(t, [0, 1])
