"""Text-in files: the ids are Hugging Face's on every string, the scores those of the ids-in files."""
import shutil
import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, normalizers
from memo_bert.core import well_formed, MemoBertError, ModelFolder
from memo_bert.data import load_data
from memo_bert.graph import open_session
from memo_bert.quantize import open_tflite, tflite_ops
from memo_bert.quantize_onnx import open_onnx, pc_file
from memo_bert.runtime_floor import RUNTIMES, Edit, lower, python_for, run_on, runtime_floor
from memo_bert.text_in import hostile_texts, open_text_onnx, open_text_tflite, random_strings, read_characters, read_tables, special_tokens, text_graph, text_onnx, text_part, text_tflite, with_text

TEXTS = [t for ts in hostile_texts().values() for t in ts] + random_strings(300, seed=7) + load_data()["val"].text.tolist()[::10]


@pytest.fixture(scope="module")
def folder(chain, tmp_path_factory):
    home = tmp_path_factory.mktemp("text_in")
    shutil.copytree(chain[0], home/"memo")
    return ModelFolder("memo", root=home)


@pytest.fixture(scope="module")
def on_pc(folder): return text_onnx(folder, seq_len=32)


@pytest.fixture(scope="module")
def on_phone(folder): return text_tflite(folder, lengths=(16, 32))


@pytest.fixture(scope="module")
def tokenizer(folder):
    t = Tokenizer.from_file(str(folder/"tokenizer.json"))
    t.no_padding(); t.enable_truncation(32)
    return t


@pytest.fixture(scope="module")
def tables(tokenizer): return read_tables(tokenizer)


def ids(tokenizer, text): return tokenizer.encode(well_formed(text)).ids


def test_ids_on_the_pc(on_pc, tokenizer):
    ask = open_text_onnx(on_pc)
    assert [t for t in TEXTS if ask(t)[1] != ids(tokenizer, t)] == []


def test_ids_on_the_phone(on_phone, tokenizer):
    ask = open_text_tflite(on_phone)
    assert [t for t in (t[:64] for t in TEXTS) if ask(t)[1] != ids(tokenizer, t)] == []


def test_scores_are_those_of_the_ids_in_file(on_pc, folder, tokenizer):
    ask, plain = open_text_onnx(on_pc), open_onnx(pc_file(folder, seq_len=32))
    names = (folder/"labels.txt").read_text(encoding="utf-8").splitlines()
    for t in TEXTS[:80]:
        x = np.array([ids(tokenizer, t)])
        feeds = dict(input_ids=x, attention_mask=np.ones_like(x), token_type_ids=np.zeros_like(x))
        logits = plain.run(["logits"], {i.name: feeds[i.name] for i in plain.get_inputs()})[0][0]
        scores, _, label = ask(t)
        assert np.abs(scores - np.exp(logits)/np.exp(logits).sum()).max() < 1e-5 and label == names[logits.argmax()]


def test_a_text_with_more_tokens_than_characters_takes_a_longer_signature(on_phone, folder, tokenizer, tmp_path):
    hangul = Tokenizer.from_str(tokenizer.to_str().replace('"い":', '"\u110b":').replace('"##い":', '"##\u1161":'))
    hangul.no_padding(); hangul.enable_truncation(32)
    tables, path = read_tables(hangul), tmp_path/"hangul.tflite"
    path.write_bytes(with_text((folder/"tflite/model_dynamic_int8_lengths.tflite").read_bytes(), {16: text_part(tables, 16, 16), 32: text_part(tables, 32, 64)}))
    text = "아记"*7
    assert len(text) <= 16 < len(ids(hangul, text)) and open_text_tflite(path)(text)[1] == ids(hangul, text)


def test_numbers_that_are_no_code_points_are_harmless(on_phone):
    run = open_tflite(on_phone).get_signature_runner("serving_default")
    for c in (-1, -2**31, 0x110000, 2**31 - 1):
        out = run(code_points=np.array([[c]*64], np.int32))
        assert np.isfinite(out["scores"]).all() and out["scores"].sum() == pytest.approx(1, abs=1e-5)


def test_tables_say_what_the_tokenizer_says(tokenizer, tables):
    codes, units, symbols, _ = read_characters(tokenizer)
    c = np.arange(0x110000)
    assert np.array_equal(tables["rows"][tables["pages"][c//256]*256 + c % 256], codes)
    assert [units[codes[ord(x)]] for x in "\0\ufeff \u3000"] == [(), (), (1,), (1,)]


def test_a_cased_tokenizer_keeps_case_and_accents(tokenizer):
    cased = Tokenizer.from_str(tokenizer.to_str())
    cased.normalizer = normalizers.BertNormalizer(lowercase=False)
    session = open_session(text_graph(read_tables(cased), 32, 64))
    for t in ("abc ABC é", *(t[:64] for t in random_strings(60, seed=3))):
        row, count = session.run(["input_ids", "tokens"], {"code_points": np.array([[*map(ord, t)] + [0]*(64 - len(t))], np.int32)})
        assert row[0][:count[0]].tolist() == ids(cased, t)


def test_refusals(tokenizer, on_pc):
    other = Tokenizer.from_str(tokenizer.to_str())
    other.add_tokens([AddedToken("记账", rstrip=True)])
    with pytest.raises(MemoBertError, match="'记账' is matched with its surroundings"): special_tokens(other)
    several = tokenizer.to_str().replace('"##a":', '"##abc":')
    with pytest.raises(MemoBertError, match="1 pieces of the vocabulary have several characters, such as '##abc'"): read_tables(Tokenizer.from_str(several))
    with pytest.raises(MemoBertError, match="choose one of: int8"): text_onnx(ModelFolder("memo"), "int3")


def test_the_encoder_is_untouched(on_phone, folder):
    def products(path):
        e = Edit(path.read_bytes())
        return [bytes(e.constant(g.tensors[o.inputs[1]])) for g in e.model.subgraphs for o in g.operators if e.name(o) == "FULLY_CONNECTED"]
    source = folder/"tflite/model_dynamic_int8_lengths.tflite"
    assert products(on_phone) == products(source) and len(products(source)) > 20
    assert runtime_floor(on_phone.read_bytes())[0] == runtime_floor(source.read_bytes())[0]
    assert not tflite_ops(on_phone).op.str.startswith("Flex").any()


@pytest.mark.runtimes
@pytest.mark.parametrize("runtime", [r for r in RUNTIMES if python_for(r)])
def test_ids_on_old_runtimes(runtime, folder, tokenizer, tables, tmp_path):
    texts = [t for t in TEXTS if len(t) <= 64][:200]
    alone, whole = tmp_path/"text.tflite", tmp_path/"whole.tflite"
    alone.write_bytes(text_part(tables, 32, 64))
    whole.write_bytes(with_text(lower((folder/"tflite/model_dynamic_int8.tflite").read_bytes(), "2.7"), {32: alone.read_bytes()}))
    points = np.array([[*map(ord, t)] + [0]*(64 - len(t)) for t in texts], np.int32)
    answer, = run_on(runtime, [whole], dict(code_points=points, input_ids=points))
    assert answer["loads"], answer.get("why")
    assert [t for t, row in zip(texts, answer["output"]) if row[:len(ids(tokenizer, t))].tolist() != ids(tokenizer, t)] == []
