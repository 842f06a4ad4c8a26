"compress(): every word of the strategy, labels, joint and token models, a run that is killed half-way, and the ranges in the files."
import json, os, signal, subprocess, sys, time

import numpy as np, pytest, torch
from transformers import ErnieForSequenceClassification, ErnieForTokenClassification

from memo_bert.compress import ALGORITHMS, KINDS, Setting, affine, compared, compress, recipe_table, settings, words
from memo_bert.core import MemoBertError, assets, sha256
from memo_bert.costs import footprint
from memo_bert.data import LABELS, read_memos
from memo_bert.finetune import build_vocab, finetune, make_tokenizer, nano_config, save_checkpoint
from memo_bert.heads import JointErnie
from memo_bert.joint import bio_labels, train_joint, load_joint
from memo_bert.learned_scales import read_scales
from memo_bert.quantize import tflite_ops

SMALL = dict(max_vocab_size=900, max_seq_length=24, width=.5, steps=2, qat_steps=2)


def shape(texts, labels, **extra):
    torch.manual_seed(0)
    tokenizer = make_tokenizer(build_vocab(texts), 32)
    config = nano_config(len(tokenizer), labels, positions=32, dropout=0.)
    for k, v in dict(hidden_size=64, num_attention_heads=4, intermediate_size=128, num_hidden_layers=2, **extra).items(): setattr(config, k, v)
    return tokenizer, config


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    before = os.environ.get("MEMO_BERT_OUTPUTS")
    os.environ["MEMO_BERT_OUTPUTS"] = str(root := tmp_path_factory.mktemp("outputs"))
    yield root
    if before is None: del os.environ["MEMO_BERT_OUTPUTS"]
    else: os.environ["MEMO_BERT_OUTPUTS"] = before


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    "(a small classifier, its data): a tenth of the bundled memos."
    home, memos = tmp_path_factory.mktemp("labels"), {s: read_memos(assets(f"corpus/{s}.jsonl")) for s in ("train", "val", "test")}
    splits = {s: memos[s].groupby("label").head(n)[["text", "label"]] for s, n in (("train", 40), ("val", 10), ("test", 10))}
    for s, rows in splits.items(): rows.to_csv(home/f"{s}.csv", index=False)
    tokenizer, config = shape(splits["train"].text.tolist(), LABELS)
    finetune(net := ErnieForSequenceClassification(config), tokenizer, splits["train"], splits["val"], 6, 32, 2e-3, 24)
    save_checkpoint(net, tokenizer, home/"small")
    return str(home/"small"), str(home)


CALL = """
import sys, torch; torch.set_num_threads(1)
from memo_bert.compress import compress
compress(sys.argv[1], sys.argv[2], name="all", algorithms=("minmax", "mse"), sizes=(16,), max_vocab_size=900, max_seq_length=24, width=.5, steps=2, qat_steps=2)
"""


def finished(home):
    ledger = home/"ledger.jsonl"
    rows = [json.loads(l) for l in ledger.read_text(encoding="utf-8").splitlines()] if ledger.exists() else []
    return [r["name"] for r in rows if r.get("step") == "compress" and r.get("metrics")]


@pytest.fixture(scope="module")
def done(labels, outputs):
    "What a run gives that goes on after another was killed with SIGKILL once three files were measured."
    p = subprocess.Popen([sys.executable, "-c", CALL, *labels], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.time() + 300
        while len(finished(outputs/"all")) < 3 and p.poll() is None and time.time() < end: time.sleep(.02)
        assert p.poll() is None, "it ended before it could be killed"
    finally: p.send_signal(signal.SIGKILL); p.wait()
    there = {f: (outputs/"all"/f).stat().st_mtime_ns for f in finished(outputs/"all")}
    result = compress(*labels, name="all", algorithms=("minmax", "mse"), sizes=(16,), **SMALL)
    return result, there


def test_words():
    assert words("qat + vocab") == ["vocab", "qat"]
    with pytest.raises(MemoBertError, match="choose one of: vocab, width, qat, embeddings"): words("vocab+prune")
    with pytest.raises(MemoBertError, match="choose one of: minmax, histogram, mse, percentile"): settings(["vocab"], ["kl"], [32])
    with pytest.raises(MemoBertError, match="at least 8"): settings(["vocab"], ["mse"], [4])


def test_affine():
    for low, high in ((-1., 2.), (.5, 3.), (-4., -1.), (0., 0.)):
        s, z = affine(low, high)
        assert -128 <= z <= 127 and abs((np.clip(round(0/s) + z, -128, 127) - z)*s) < 1e-9   # 0 is exact
        for v in (low, high): assert abs((np.clip(round(v/s) + z, -128, 127) - z)*s - v) <= s*.51


def test_killed_run_goes_on(done, outputs):
    result, there = done
    assert 3 <= len(there) < 8
    for f, t in there.items(): assert (outputs/"all"/f).stat().st_mtime_ns == t, f"{f} was made twice"
    assert len(result.table) == 8 and set(result.table.file) <= set(finished(outputs/"all"))


def test_files(done):
    result, _ = done
    table = result.table.set_index("file")
    assert table.winner.groupby(table.kind).sum().eq(1).all()
    for f in table.index[table.winner]: assert sha256(result.home/f) == sha256(result.home/f"{f.split('.')[1]}/model_compressed.{f.split('.')[1]}")
    assert table.MB["compress/learned.tflite"] < .75*table.MB["compress/float.tflite"]
    ops = tflite_ops(result.home/"compress/learned.tflite")
    assert set(ops[ops.op.isin(["FULLY_CONNECTED", "CONV_2D"])].inputs) == {"int8 × int8"}
    assert "int8 × int32" in set(ops[ops.op == "GATHER"].inputs)
    assert table.accuracy["compress/float.tflite"] > .14   # chance is 1 in 12: the small model has learned something


@pytest.mark.parametrize("kind", KINDS)
def test_ranges_reach_the_files(done, kind):
    result, _ = done
    inputs = {}
    for s in (Setting("minmax", 16), Setting("mse", 16), Setting("learned")):
        found = [l for l in read_scales(result.home/f"compress/{s}{kind}").values() if not l.table]
        for n, want in ((n, l) for n, l in result.maker.layers(s, True).items() if not l.table):
            got = next(l for l in found if l.weights.shape == want.weights.shape and np.array_equal(l.weights, want.weights))
            assert got.input == pytest.approx(want.input, rel=1e-5) and got.input_zero == want.input_zero
            np.testing.assert_allclose(np.ravel(got.output), np.ravel(want.output), rtol=1e-5)
            inputs[str(s), n] = want.input
    assert len({round(v, 9) for (s, n), v in inputs.items() if n.endswith("intermediate.dense")}) > 2   # the methods choose differently


def test_recipe_table(done, labels):
    table = recipe_table(done[0], labels[1], "test", 16, 20)
    assert table.index.tolist() == ["original fp32", "original fp16", "pruned fp32", "+ int8 matrix products", "+ int8 embeddings"]
    assert table.points["original fp32"] == 0 and table.MB.iloc[-1] < table.MB["+ int8 matrix products"] < table.MB["pruned fp32"]
    assert (table.pss_MB > table.own_MB).all() and (table.own_MB > 0).all()


def test_less_of_the_strategy(labels, outputs):
    result = compress(*labels, strategy="embeddings", name="tables", algorithms=("percentile",), sizes=(8,), max_seq_length=24)
    assert result.table.products.tolist() == ["float", "float", "percentile", "percentile"]
    kept = read_scales(result.home/"compress/float.tflite")
    assert kept and all(l.table for l in kept.values())
    products = compress(*labels, strategy="vocab", name="products", algorithms=("mse",), sizes=(8,), max_vocab_size=3500, max_seq_length=24)
    read = read_scales(products.home/"compress/mse_8.tflite")
    assert read and not any(l.table for l in read.values())
    assert products.table.flips[0] <= 3    # vocabulary alone, in float: only words no longer known can change an answer


SENTENCES = [("{} {}开会", "工作"), ("{}记得{}吃药", "健康"), ("{}{}去机场", "出行"), ("{}买牛奶", "购物")]
DAYS, HOURS = ["明天", "后天", "周五", "下周一", "今天"], ["三点", "八点", "上午九点", "晚上七点"]


@pytest.fixture(scope="module")
def slots(tmp_path_factory):
    "(a folder of sentences with an intent and slots)."
    home = tmp_path_factory.mktemp("slots")
    rows = []
    for text, intent in SENTENCES:
        for day in DAYS:
            for hour in HOURS if text.count("{}") > 1 else [""]:
                said = text.format(*[day, hour][:text.count("{}")])
                found = [dict(type=t, start=said.index(v), end=said.index(v) + len(v)) for t, v in (("day", day), ("hour", hour)) if v]
                rows.append(dict(text=said, intent=intent, slots=found))
    for name, part in (("train", rows), ("dev", rows[::3])):
        (home/f"{name}.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in part), encoding="utf-8")
    return home


def test_joint(slots, outputs):
    splits = load_joint(str(slots))
    tokenizer, config = shape(splits["train"].text.tolist()*3, sorted(set(splits["train"].intent)), slot_labels=bio_labels(["day", "hour"]))
    train_joint(net := JointErnie(config), tokenizer, splits, 30, 16, 3e-3, 24)
    save_checkpoint(net, tokenizer, slots/"joint")
    result = compress(str(slots/"joint"), str(slots), strategy="width+qat+embeddings", name="joint", algorithms=("minmax",), sizes=(16,), max_seq_length=24, steps=60, qat_steps=20)
    assert result.table.n.eq(len(splits["val"])).all() and result.table.kind.tolist() == list(KINDS)*3
    reference = result.judge.answers(result.judge.reference(".tflite"), result.judge.tokenizer)
    assert compared(reference, reference, result.judge.truth)["accuracy"] > .5


def test_tokens(slots, outputs):
    tags = bio_labels(["day", "hour"])
    tokenizer, config = shape(load_joint(str(slots))["train"].text.tolist()*3, tags)
    save_checkpoint(ErnieForTokenClassification(config), tokenizer, slots/"tokens")
    result = compress(str(slots/"tokens"), str(slots), strategy="embeddings", name="tokens", algorithms=("minmax",), sizes=(8,), max_seq_length=24)
    assert len(result.table) == 4 and isinstance(result.judge.truth[0], tuple)


def test_footprint(done):
    feeds = {k: np.ones((3, 24), np.int64) for k in ("input_ids", "attention_mask", "token_type_ids")}
    path = done[0].home/"compress/learned.tflite"
    for way in ("plain", "cache", "release"):
        m = footprint(path, feeds, way)
        assert m["pss_MB"] == pytest.approx(m["base_MB"] + m["own_MB"]) and 0 < m["own_MB"] < 30 <= 60 > m["rss_MB"]
    with pytest.raises(MemoBertError, match="choose one of: plain, cache, release"): footprint(path, feeds, "magic")
    with pytest.raises(MemoBertError, match="failed in a fresh process"): footprint(done[0].home/"labels.txt", feeds)


def test_wrong_model(tmp_path, labels, outputs):
    tokenizer, config = shape(["记一下"]*5, ["a", "b"])
    config.problem_type = "multi_label_classification"
    save_checkpoint(ErnieForSequenceClassification(config), tokenizer, tmp_path/"many")
    with pytest.raises(MemoBertError, match="it takes label, joint and tokens"): compress(str(tmp_path/"many"), labels[1], name="many")
    with pytest.raises(MemoBertError, match="A setting is 'widht'"): compress(labels[0], labels[1], widht=.5)
