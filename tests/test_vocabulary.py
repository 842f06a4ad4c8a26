"Vocabularies that would give a client other ids: found before export, mended where a row can be kept."
import json, shutil

import pytest
from memo_bert.core import MemoBertError, ModelFolder, assets
from memo_bert.export import onnx_file
from memo_bert.finetune import checkpoint
from memo_bert.vocabulary import RULES, check_vocabulary, dense, lint, mend, vocabulary_rows

GOOD = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "开", "会", "##会"]
BROKEN = {"duplicate": GOOD + ["开"], "blank": GOOD[:6] + [""] + GOOD[6:], "crlf": [t + "\r" for t in GOOD], "special": GOOD[1:], "too many": GOOD + ["议"], "too few": GOOD[:-1],
          "mask": GOOD[:4] + GOOD[5:], "orphan piece": GOOD + ["##议"], "upper case": GOOD + ["Wi"], "accent": GOOD + ["é"]}


def text(tokens): return "".join(t + "\n" for t in tokens).encode()


def test_every_rule_is_tried(): assert set(BROKEN) == set(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule):
    assert rule in {f.rule for f in lint(text(BROKEN[rule]), len(GOOD))}
    assert lint(text(GOOD), len(GOOD)) == []


def test_cased_vocabulary_keeps_upper_case(): assert lint(GOOD + ["Wi", "é"], lower=False) == []


def test_mended_rows_stay():
    twice = GOOD + ["$", "开", "$"]
    mended = mend(twice)
    assert [i for i, (a, b) in enumerate(zip(twice, mended)) if a != b] == [5, 8] and len(set(mended)) == len(twice)
    assert {f.rule for f in lint(mended)} == set()
    assert dense({}) == [] and dense({"a": 2}) == ["[unused_row_0]", "[unused_row_1]", "a"]


@pytest.mark.parametrize("data, says", [("好\n".encode("gbk"), "not UTF-8"), (None, "is not there")])
def test_what_cannot_be_read(tmp_path, data, says):
    if data: (tmp_path/"vocab.txt").write_bytes(data)
    with pytest.raises(MemoBertError, match=says): lint(tmp_path)


@pytest.fixture
def doubled(tmp_path):
    "A folder as on a hub, whose vocab.txt has `$` again in place of its last token; no tokenizer.json."
    home = tmp_path/"doubled"
    shutil.copytree(assets("memo"), home, ignore=shutil.ignore_patterns("onnx", "tokenizer.json"))
    tokens = vocabulary_rows((home/"vocab.txt").read_bytes())
    (home/"vocab.txt").write_bytes(text([*tokens[:-1], "$"]))
    return home, tokens


def test_duplicate_keeps_every_id(doubled, tmp_path, capsys):
    from transformers import AutoTokenizer
    home, tokens = doubled
    folder, first = ModelFolder(str(home), tmp_path/"out"), tokens.index("$")
    want = AutoTokenizer.from_pretrained(home)("买$5元").input_ids
    checkpoint(folder)
    assert f"Row {first} of the vocabulary" in capsys.readouterr().out
    rows = vocabulary_rows((folder/"vocab.txt").read_bytes())
    assert [i for i, (a, b) in enumerate(zip(rows, tokens)) if a != b] == [first, len(tokens) - 1] and rows[-1] == "$"
    assert json.loads((folder/"tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"] == {t: i for i, t in enumerate(rows)}
    tokenizer = AutoTokenizer.from_pretrained(folder.path)
    assert len(tokenizer) == len(tokens) and tokenizer("买$5元").input_ids == want and len(tokens) - 1 in want
    assert [f for f in lint(folder.path) if f.severity == "error"] == []


def test_export_stops_at_a_shifted_row(tmp_path):
    folder = ModelFolder("memo", tmp_path)
    checkpoint(folder)
    rows = vocabulary_rows((folder/"vocab.txt").read_bytes())
    (folder/"vocab.txt").write_bytes(text(rows[:1000] + rows[1001:]))
    with pytest.raises(MemoBertError, match="4217 tokens have another id in tokenizer.json"): onnx_file(folder, 16)
    assert not (folder/"onnx/model.onnx").exists()


def test_notes_are_said_once_a_rule(tmp_path, capsys):
    (tmp_path/"vocab.txt").write_bytes(text(GOOD + ["##议", "##a", "Wi"]))
    check_vocabulary(tmp_path)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and said[0].endswith("and 1 like it.")
