"A joint model end to end: data that is refused, tags and spans, training that learns, and answers that survive a round trip through files."
import json
import numpy as np, pandas as pd, pytest
from memo_bert.core import MemoBertError, ModelFolder
from memo_bert.finetune import read_model
from memo_bert.joint import answers, best_tags, bio_labels, joint_folder, joint_logits, load_joint, offsets_of, out_of_reach, predict_joint, read_joint, score_joint, swapped, to_slots, to_tags, values_of

CITIES, DAYS = "北京 上海 杭州 成都 西安 昆明".split(), "今天 明天 后天 周三 周日 月底".split()

def rows(n, seed):
    rng = np.random.default_rng(seed)
    def one():
        day, city = rng.choice(DAYS), rng.choice(CITIES)
        text, intent, place = [(f"{day}去{city}", "出行", 3), (f"{day}买{city}特产", "购物", 3)][rng.integers(2)]
        return dict(text=text, intent=intent, slots=[dict(type="date", start=0, end=2, value=day), dict(type="place", start=place, end=place + 2, value=city)])
    return [one() for _ in range(n)]

def write(path, rows): path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8"); return path

@pytest.fixture(scope="module")
def trips(tmp_path_factory):
    d = tmp_path_factory.mktemp("trips")
    write(d/"train.jsonl", rows(160, 0)); write(d/"dev.jsonl", rows(40, 1))
    return d

@pytest.fixture(scope="module")
def trained(trips, tmp_path_factory):
    folder = ModelFolder("trips", tmp_path_factory.mktemp("outputs"))
    joint_folder(folder, str(trips), epochs=4, batch_size=16, lr=5e-4, max_length=24)
    return folder

@pytest.mark.parametrize("slots, fault", [
    ([dict(type="date", start=0, end=9)], "slot date is 0 to 9 of 5 characters"), ([dict(type="date", start=2, end=2)], "slot date is 2 to 2"),
    ([dict(start=0, end=2)], "a slot needs type, start and end"),
    ([dict(type="date", start=0, end=2, value="后天")], "slot date is '明天' in the text and '后天' by its value"), (None, "slots is not a list"), ([dict(type="date", start=True, end=2)], "a slot needs"), ([dict(type="date", start="0", end=2), dict(type="date", start=2, end=3)], "a slot needs"), (["x"], "a slot needs")])
def test_bad_slots_are_named_by_row(tmp_path, slots, fault):
    good = dict(text="买盐", intent="购物", slots=[])
    with pytest.raises(MemoBertError, match="1 bad rows") as e: read_joint(write(tmp_path/"x.jsonl", [good, dict(text="明天去杭州", intent="出行", slots=slots)]))
    assert f"row 2: {fault}" in str(e.value)

def test_slots_that_stand_twice_or_lie_over_another(tmp_path):
    a, b = dict(type="date", start=0, end=2), dict(type="time", start=1, end=2)
    df = read_joint(write(tmp_path/"x.jsonl", [dict(text="明天去杭州", intent="出行", slots=[b, a, a])]))
    assert df.slots[0] == [("date", 0, 2), ("time", 1, 2)] and len(out_of_reach(df, read_model()[1], 24)) == 1
    got = score_joint(df, [dict(intent="出行", slots=[dict(slot="date", pos=[0, 2])])])
    assert got["sentence_accuracy"] == 0 and abs(got["slot_f1"] - 2/3) < 1e-9

def test_an_intent_that_training_lacks_is_refused(tmp_path):
    write(tmp_path/"train.jsonl", rows(5, 0)); write(tmp_path/"dev.jsonl", [dict(text="唱歌", intent="娱乐", slots=[])])
    with pytest.raises(MemoBertError, match="The intent '娱乐' is in val"): load_joint(str(tmp_path))

def test_bundled_slots():
    splits = load_joint()
    assert len(splits["train"]) + len(splits["val"]) >= 1500 and len(splits["test"]) >= 300
    assert {t for df in splits.values() for s in df.slots for t, _, _ in s} == {"time", "date", "amount", "person", "place", "item"}
    assert not set(splits["test"].text) & {*splits["train"].text, *splits["val"].text}

def test_spans_survive_the_tokens_but_for_words_with_an_emoji():
    _, tok = read_model()
    for df in load_joint().values():
        lost = out_of_reach(df, tok, 128)
        assert len(lost) < .005*len(df) and all("[UNK]" in tok.tokenize(t) for t in lost.text)
        kept = df.drop(lost.index)
        for t, s, o in zip(kept.text, kept.slots, offsets_of(tok, kept.text.tolist(), 128)): assert to_slots(to_tags(s, o), o) == s, t

def test_best_path_is_the_best_allowed_one():
    labels, rng = bio_labels(["a", "b"]), np.random.default_rng(0)
    allowed = lambda p: all(t[0] != "I" or (i and p[i - 1] != "O" and p[i - 1][2:] == t[2:]) for i, t in enumerate(p))
    import itertools
    for _ in range(20):
        x = rng.normal(size=(4, 5)).astype(np.float32)
        best = max((p for p in itertools.product(range(5), repeat=4) if allowed([labels[i] for i in p])), key=lambda p: sum(x[i, t] for i, t in enumerate(p)))
        assert best_tags(x, labels) == [labels[i] for i in best]

def test_swapped_spans_hold_their_values():
    df, rng = load_joint()["train"], np.random.default_rng(0)
    values = values_of(df)
    for text, slots in zip(df.text[:200], df.slots[:200]):
        new, moved = swapped(text, slots, values, rng, share=1.)
        assert [t for t, _, _ in moved] == [t for t, _, _ in slots] and all(new[a:b] in values[t] for t, a, b in moved)

def test_it_learns_and_is_read_back(trained, trips):
    val = load_joint(str(trips))["val"]
    net, tok = read_model(str(trained.path))
    got = score_joint(val, predict_joint(net, tok, val.text.tolist(), 24))
    assert got["sentence_accuracy"] > .9 and got["intent_accuracy"] > .9, got
    said = predict_joint(net, tok, ["明天去杭州"], 24)[0]
    assert said["intent"] == "出行" and {"slot": "place", "entity": "杭州", "pos": [3, 5]} in said["slots"] and 0 < said["confidence"] <= 1

def test_an_unchanged_model_is_not_trained_again(trained, trips):
    before = (trained/"model.safetensors").stat().st_mtime_ns
    joint_folder(trained, str(trips), epochs=4, batch_size=16, lr=5e-4, max_length=24)
    assert (trained/"model.safetensors").stat().st_mtime_ns == before

def test_answers_do_not_depend_on_the_batch(trained):
    net, tok = read_model(str(trained.path))
    texts = ["明天去杭州", "", "后天买上海特产，再去成都和西安看看", "\x00", "去"*200]
    one = [predict_joint(net, tok, [t], 24)[0] for t in texts]
    for a, b in zip(one, predict_joint(net, tok, texts, 24)): assert (a["intent"], a["slots"]) == (b["intent"], b["slots"])
    assert all(b <= 22 for s in one[-1]["slots"] for b in s["pos"])

def test_score_counts_whole_sentences():
    df = pd.DataFrame([dict(text="明天去杭州", intent="出行", slots=[("date", 0, 2)]), dict(text="买盐", intent="购物", slots=[])])
    say = lambda intent, *s: dict(intent=intent, slots=[dict(slot=t, pos=[a, b]) for t, a, b in s])
    assert score_joint(df, [say("出行", ("date", 0, 2)), say("出行")])["sentence_accuracy"] == .5
    assert score_joint(df, [say("出行", ("date", 0, 1)), say("购物")]) | dict(low=0, high=0) == dict(n=2, intent_accuracy=1., slot_f1=0., sentence_accuracy=.5, low=0, high=0)
