"""An archive on a local Ray cluster: a worker is killed, and nothing is lost and nothing twice."""
import json, os, threading, time
from pathlib import Path

import psutil
import pytest
from memo_bert.classify import MemoClassifier
from memo_bert.core import MemoBertError
from memo_bert.data import load_data

pytestmark = pytest.mark.ray
MEMOS = load_data()["val"].text.tolist()[:300]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray, tempfile
    with tempfile.TemporaryDirectory(prefix="ray") as short:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=500_000_000, _temp_dir=short)
        yield ray
        ray.shutdown()


@pytest.fixture
def files(tmp_path):
    (source := tmp_path/"in").mkdir()
    for part in range(12):
        rows = ({"id": 1000*part + i, "text": t} for i, t in enumerate(MEMOS))
        (source/f"part-{part:03}.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
    return sorted(source.iterdir())


def test_batch_function(cluster):
    from memo_bert.cluster import Labeller
    got = cluster.data.from_items([{"text": t} for t in MEMOS]).map_batches(Labeller, batch_size=64, compute=cluster.data.ActorPoolStrategy(size=2)).to_pandas()
    want = dict(zip(MEMOS, MemoClassifier()(MEMOS)))
    assert len(got) == len(MEMOS) and all(want[t]["label"] == l for t, l in zip(got.text, got.label))


def test_a_killed_worker(cluster, files, tmp_path):
    from memo_bert.cluster import check, label_files
    to, killed = tmp_path/"out", []
    def kill():
        while len(list(to.glob("part-*"))) < 4: time.sleep(.02)
        victim = next(p for p in psutil.Process().children(recursive=True) if "FileLabeller" in p.name())
        victim.kill(); killed.append(victim.pid)
    (thread := threading.Thread(target=kill)).start()
    done = label_files(files, to)
    thread.join()
    assert killed and len({r["pid"] for r in done} | {*killed}) == 3
    assert check(files, to) == len(files)*len(MEMOS) == sum(r["memos"] for r in done)
    ids = [json.loads(l)["id"] for f in to.glob("part-*") for l in f.read_text(encoding="utf-8").splitlines()]
    assert len(ids) == len(set(ids)) == len(files)*len(MEMOS)
    want = [(a["label"], round(a["score"], 6)) for a in MemoClassifier()(MEMOS)]
    for f in to.glob("part-*"): assert [(r["label"], r["score"]) for r in map(json.loads, f.read_text(encoding="utf-8").splitlines())] == want
    assert not list(to.glob(".part-*")) and label_files(files, to) == []


def test_resumes_what_is_missing_only(cluster, files, tmp_path):
    from memo_bert.cluster import check, label_files
    label_files(files[:2], tmp_path/"out")
    before = (tmp_path/"out/part-000.jsonl").stat().st_mtime_ns
    assert [Path(r["file"]).name for r in label_files(files[:3], tmp_path/"out")] == ["part-002.jsonl"]
    assert (tmp_path/"out/part-000.jsonl").stat().st_mtime_ns == before and check(files[:3], tmp_path/"out") == 3*len(MEMOS)


def test_refusals(tmp_path, files):
    from memo_bert.cluster import check, label_files
    (tmp_path/"out").mkdir()
    (tmp_path/"out/labelled_by.json").write_text('{"file": "other.onnx", "sha256": "0"}')
    with pytest.raises(MemoBertError, match="another model"): label_files(files, tmp_path/"out")
    with pytest.raises(MemoBertError, match="would both become part-000.jsonl"): label_files([files[0], files[0].with_suffix(".csv")], tmp_path/"new")
    (tmp_path/"out/part-000.jsonl").write_text(files[0].read_text(encoding="utf-8")*2, encoding="utf-8")
    with pytest.raises(MemoBertError, match="memo 301 is twice"): check(files[:1], tmp_path/"out")
