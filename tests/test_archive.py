"""A stream of memos: broken lines are named and passed over, several processes give what one gives, and nothing half-written stays."""
import csv, io, json, os, signal, subprocess, sys, time

import psutil
import pytest
from memo_bert.archive import LONGEST, Workers, label, read
from memo_bert.classify import MemoClassifier
from memo_bert.core import MemoBertError
from memo_bert.data import load_data

MEMO_BERT = [sys.executable, "-c", "import sys; from memo_bert.command import main; sys.exit(main())"]
MEMOS = load_data()["val"].text.tolist()


def command(*args, **kw): return subprocess.run([*MEMO_BERT, "classify", *map(str, args)], capture_output=True, text=kw.pop("text", True), **kw)


def pairs(texts): return ((i, {"text": t}) for i, t in enumerate(texts, 1))


@pytest.fixture(scope="module")
def alone(): return list(label(pairs(MEMOS)))


@pytest.fixture
def archive(tmp_path):
    path = tmp_path/"memos.jsonl"
    path.write_text("".join(json.dumps({"id": i, "text": t}, ensure_ascii=False) + "\n" for i, t in enumerate(MEMOS*10)), encoding="utf-8")
    return path


def test_answers_are_the_classifiers(alone):
    assert [(r["label"], r["score"]) for _, r in alone] == [(a["label"], a["score"]) for a in MemoClassifier()(MEMOS)]


def test_two_processes_answer_in_order(alone): assert list(label(pairs(MEMOS), jobs=2)) == alone


def test_a_killed_process_loses_nothing(alone):
    def killing():
        for i, pair in enumerate(label(pairs(MEMOS*4), jobs=2)):
            if i == 600: next(p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())).kill()
            yield pair[1]
    assert list(killing()) == [r for _, r in alone]*4


def test_processes_that_keep_dying_end_the_run():
    workers = Workers(2, deaths=1)
    def chunks():
        while True:
            for p in workers.pool._processes.copy().values(): p.kill()
            yield [(1, {"text": "开会"})]
    with pytest.raises(MemoBertError, match="keep dying"):
        for _ in workers.map(chunks()): pass
    workers.close()


BROKEN = b'\xef\xbb\xbf{"text": "\xe4\xb9\xb0\xe8\x8f\x9c", "id": 1}\n\n{"text": \n{"text": null}\n["a"]\n\xff\xfe\n' + b'['*100_000 + b'\n{"id": 8}\n{"text": "a\\ud83d", "label": "x"}'


def test_broken_lines_are_numbered():
    found = list(read(io.BytesIO(BROKEN), "jsonl"))
    assert [n for n, r in found if isinstance(r, dict)] == [1, 9]
    assert [n for n, r in found if isinstance(r, ValueError)] == [3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("kind", ["lines", "jsonl", "csv"])
def test_no_bytes_stop_the_reader(kind):
    import random
    rng = random.Random(0)
    for _ in range(300):
        data = b"text\n" + bytes(rng.choice(b'{}[]":,\n\r\\utex \x00\xff\xe5\xbc\x80"') for _ in range(rng.randrange(200)))
        assert all(isinstance(r, ValueError) or isinstance(r["text"], str) for _, r in read(io.BytesIO(data), kind))


def test_a_line_without_end_takes_no_memory():
    class Endless(io.RawIOBase):
        left = 20*LONGEST
        def readable(self): return True
        def readinto(self, b): n = min(len(b), self.left); b[:n] = b"x"*n; self.left -= n; return n
    before = psutil.Process().memory_info().rss
    (n, row), = read(io.BufferedReader(Endless(), 1 << 20))
    assert (n, str(row)) == (1, "it has more than 16 MB")
    assert psutil.Process().memory_info().rss - before < 3*LONGEST


def test_the_command_names_broken_lines_and_goes_on(tmp_path):
    (tmp_path/"a.jsonl").write_bytes(BROKEN)
    done = command("--input", tmp_path/"a.jsonl", "--output", tmp_path/"a.csv", "--format", "jsonl")
    assert done.returncode == 3 and done.stdout == ""
    said = done.stderr.splitlines()
    assert [l.split(" is left out")[0] for l in said[:-1]] == [f"memo-bert: line {n}" for n in (3, 4, 5, 6, 7, 8)]
    assert said[-1] == "memo-bert: 6 of 8 lines were left out."
    rows = [json.loads(l) for l in (tmp_path/"a.csv").read_text(encoding="utf-8").splitlines()]
    assert [(r["text"], r.get("id"), r.get("given_label")) for r in rows] == [("买菜", 1, None), ("a\ud83d", None, "x")]


def test_standard_input_and_arguments_stay_as_they_were():
    expected = ["财务\t0.988\t打车32", "购物\t0.998\t猫粮快没了"]
    for done in (command(input="打车32\n猫粮快没了\n"), command("打车32", "猫粮快没了"), command("--jobs", 2, input="打车32\r\n猫粮快没了")):
        assert (done.returncode, done.stderr, done.stdout.splitlines()) == (0, "", expected)


def test_a_label_comes_as_soon_as_its_line():
    run = subprocess.Popen([*MEMO_BERT, "classify"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        run.stdin.write("打车32\n"); run.stdin.flush()
        assert run.stdout.readline() == "财务\t0.988\t打车32\n"
    run.stdin.close(); assert run.wait() == 0
    run.stdout.close()


def test_csv_in_csv_out(tmp_path):
    odd = [["1", "买菜\n做饭"], ["2", 'a,"b"\rc'], ["3", ""]]
    with open(tmp_path/"in.csv", "w", newline="", encoding="utf-8-sig") as f: csv.writer(f).writerows([["id", "text"], *odd])
    assert command("--input", tmp_path/"in.csv", "--output", tmp_path/"out.csv").returncode == 0
    with open(tmp_path/"out.csv", newline="", encoding="utf-8") as f: rows = list(csv.DictReader(f))
    assert [[r["id"], r["text"]] for r in rows] == odd and all(r["label"] and 0 < float(r["score"]) <= 1 for r in rows)


@pytest.mark.parametrize("sig, code", [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing(tmp_path, archive, sig, code):
    to = tmp_path/"out"/"labels.csv"
    run = subprocess.Popen([*MEMO_BERT, "classify", "--input", archive, "--output", to, "--jobs", "2"], stderr=subprocess.PIPE, text=True,
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a shell's background jobs start with it ignored
    while not any(p.stat().st_size for p in to.parent.glob(".part-*/labels.csv")): time.sleep(.05)
    children = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(sig)
    assert "Traceback" not in run.communicate()[1] and run.returncode == code
    assert os.listdir(to.parent) == [] and not any(p.is_running() for p in psutil.wait_procs(children, timeout=10)[1])


def test_workers_end_with_a_killed_parent(tmp_path, archive):
    run = subprocess.Popen([*MEMO_BERT, "classify", "--input", archive, "--output", tmp_path/"o.csv", "--jobs", "2"], stderr=subprocess.DEVNULL)
    while not any(p.stat().st_size for p in tmp_path.glob(".part-*/o.csv")): time.sleep(.05)
    children = psutil.Process(run.pid).children(recursive=True)
    run.kill(); run.wait()
    assert not psutil.wait_procs(children, timeout=10)[1] and not (tmp_path/"o.csv").exists()


def test_an_existing_output_survives_a_failed_run(tmp_path):
    (tmp_path/"o.csv").write_text("before")
    assert command("--input", tmp_path/"none", "--output", tmp_path/"o.csv").returncode == 1
    (tmp_path/"bad.csv").write_text("memo\n买菜\n", encoding="utf-8")
    done = command("--input", tmp_path/"bad.csv", "--output", tmp_path/"o.csv")
    assert done.returncode == 1 and "no column text" in done.stderr and (tmp_path/"o.csv").read_text() == "before"


@pytest.mark.parametrize("args, words", [
    (("--jobs", 0, "开会"), "jobs is 0"), (("--input", "none"), "none cannot be read"), (("--input", "none", "开会"), "not both"), (("--output", ".", "开会"), "is a folder")])
def test_bad_input_is_one_sentence(args, words):
    done = command(*args)
    assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1


def test_memory_does_not_grow_with_the_archive(tmp_path, archive):
    "Peak of the parent and of the largest of two workers, for 700 memos and for 6,870."
    script = tmp_path/"peak.py"
    script.write_text('import resource, sys; from memo_bert.archive import label_file\nif __name__ == "__main__":\n    label_file(*sys.argv[1:], jobs=2)\n'
                      '    own = next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM"))\n'
                      '    print(own/1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss/1024)')
    (few := tmp_path/"few.jsonl").write_text("".join(archive.read_text(encoding="utf-8").splitlines(True)[:700]), encoding="utf-8")
    peaks = [[float(mb) for mb in subprocess.run([sys.executable, script, f, tmp_path/"o.jsonl"], check=True, capture_output=True, text=True).stdout.split()] for f in (few, archive)]
    assert all(much - little < 10 for little, much in zip(*peaks)) and max(peaks[1]) < 150


def test_reads_a_million_lines_in_constant_memory():
    import tracemalloc
    class Lines(io.RawIOBase):
        "A million lines, made as they are read."
        n, line = 0, '{"text": "明天下午三点开会", "id": 1234567}\n'.encode()
        def readable(self): return True
        def readinto(self, b):
            k = min(len(b)//len(self.line), 1_000_000 - self.n)
            b[:k*len(self.line)] = self.line*k
            self.n += k
            return k*len(self.line)
    tracemalloc.start()
    assert sum(1 for _ in read(io.BufferedReader(Lines(), 1 << 16), "jsonl")) == 1_000_000
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
