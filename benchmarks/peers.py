"""Our phone file beside what others write from the same weights, in one run on one machine.

    python benchmarks/peers.py            # the bundled model and ERNIE 3.0 nano's full shape
    python benchmarks/peers.py --models memo

The peers install themselves into environments of their own below outputs/.environments (about 5 GB at the first run).
"""
import argparse, json, subprocess, tempfile
from pathlib import Path
import numpy as np, onnx, pandas as pd, torch
from ai_edge_litert.interpreter import Interpreter
from transformers import ErnieConfig, ErnieForSequenceClassification
from memo_bert.core import MemoBertError, ModelFolder, machine, one_of, outputs_root, quiet, side_by_side
from memo_bert.data import load_data
from memo_bert.export import INPUTS, encode, onnx_file, torch_outputs, with_activation
from memo_bert.finetune import place, read_model
from memo_bert.graph import apply_passes, load_graph
from memo_bert.lengths import lengths_file
from memo_bert.quantize import convert
from memo_bert.runtime_floor import runtime_floor, side_environment
from memo_bert.to_tf import to_saved_model

HERE, LONGEST, CHARACTERS = Path(__file__).resolve().parent, 128, (12, 30, 100)


def ernie_folder():
    "ERNIE 3.0 nano's full shape (40 000 tokens, 2 048 positions, task types) with the bundled weights where it has room, so that labels mean something."
    memo, tokenizer = read_model("memo")
    torch.manual_seed(0)
    config = ErnieConfig(**(memo.config.to_dict() | dict(vocab_size=40_000, max_position_embeddings=2048, type_vocab_size=4, task_type_vocab_size=3, use_task_id=True)))
    net, weights = ErnieForSequenceClassification(config), memo.state_dict()
    for name, w in net.state_dict().items():
        if "task_type" in name: w.zero_()
        elif name in weights: w[tuple(slice(n) for n in weights[name].shape)] = weights[name]
    folder = ModelFolder("ernie_nano_shape")
    place(folder, net.eval(), tokenizer, step="finetune", source="bundled weights in ERNIE 3.0 nano's shape")
    return folder


def environment(name): return side_environment((HERE/f"{name}.txt").read_text().split())


def done(command, what):
    out = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if out.returncode: raise MemoBertError(f"{what} failed: {(out.stderr.strip() or out.stdout.strip()).splitlines()[-1]}")


def litert_torch(folder, work):
    done([environment("litert-torch"), HERE/"litert_torch_file.py", folder.path, LONGEST, work/"litert_torch.tflite"], "litert-torch")
    return work/"litert_torch.tflite"


def onnx2tf(folder, work):
    python = environment("onnx2tf")
    done([python, "-m", "onnxsim", onnx_file(folder, LONGEST), work/"simple.onnx"], "onnxsim")
    done([python, "-m", "onnx2tf", "-i", work/"simple.onnx", "-o", work/"onnx2tf", "-odrqt", "-n"], "onnx2tf")
    return work/"onnx2tf/simple_dynamic_range_quant.tflite"


def old_recipe(folder, work):
    "One length, float, the graph as exported: what the common recipe ships."
    onnx.save(apply_passes(load_graph(onnx_file(folder, LONGEST)), "gather_int32", "unsqueeze_11")[0], work/"old.onnx")
    (work/"old.tflite").write_bytes(convert(to_saved_model(work/"old.onnx", work/"old"), "fp32"))
    return work/"old.tflite"


FILES = {"memo_bert dynamic_int8, lengths": lambda f, w: lengths_file(f), "litert-torch dynamic_wi8": litert_torch,
         "onnx2tf dynamic range": onnx2tf, "fixed 128, fp32": old_recipe}


def plain(interpreter):
    "What `get_signature_runner` gives, for a file without signatures."
    interpreter.allocate_tensors()
    inputs, output = {d["name"]: d for d in interpreter.get_input_details()}, interpreter.get_output_details()[0]["index"]
    def call(**arrays):
        for n, v in arrays.items(): interpreter.set_tensor(inputs[n]["index"], v)
        interpreter.invoke()
        return {"logits": interpreter.get_tensor(output)}
    call.get_input_details = lambda: inputs
    return call


def graphs(interpreter):
    "The file's graphs as signature runners: those for a length each where there are any."
    keys = list(interpreter.get_signature_list())
    if not keys: return [plain(interpreter)]
    return [interpreter.get_signature_runner(k) for k in keys if k.startswith("seq") or len(keys) == 1]


def classifier(path):
    "A function from one memo's arrays `[1, 128]` to its logits by the file's shortest graph that holds it, on LiteRT with one thread."
    with quiet():
        interpreter, runners = Interpreter(str(path), num_threads=1), {}
        for run in graphs(interpreter):
            details = run.get_input_details()
            names = {n: next(k for k in details if n in k) for n in INPUTS}
            length = int(details[names["input_ids"]]["shape"][1])
            runners[length] = run, {n: (k, details[k]["dtype"]) for n, k in names.items()}
            run(**{k: np.ones((1, length), d) for k, d in runners[length][1].values()})
    def call(x):
        n = next(n for n in sorted(runners) if n >= x["attention_mask"].sum())
        run, names = runners[n]
        return next(iter(run(**{k: x[m][:, :n].astype(d) for m, (k, d) in names.items()}).values()))[0]
    return call


def compare(folder, rounds):
    "DataFrame of the files made from `folder`: MB, median ms at each of CHARACTERS, times the fixed file's speed on a short memo, flips and mean logit difference against PyTorch, oldest TFLite."
    net, tokenizer = read_model(str(folder.path))
    texts = load_data()["val"].text.tolist()
    x = encode(tokenizer, texts, LONGEST)
    want = torch_outputs(with_activation(net, "gelu_new"), x)["logits"]
    row = lambda a, k: {n: v[k:k + 1] for n, v in a.items()}
    with tempfile.TemporaryDirectory() as d:
        paths = {n: make(folder, Path(d)) for n, make in FILES.items()}
        calls = {n: classifier(p) for n, p in paths.items()}
        table = {n: dict(MB=p.stat().st_size/1e6) for n, p in paths.items()}
        for c in CHARACTERS:
            one = encode(tokenizer, ["记"*c], LONGEST)
            for n, t in side_by_side({n: lambda f=f: f(one) for n, f in calls.items()}, rounds=rounds).items(): table[n][f"ms, {c} characters"] = 1000*float(np.median(t))
        for n, f in calls.items():
            got = np.stack([f(row(x, k)) for k in range(len(texts))])
            table[n] |= {"flips": int((got.argmax(1) != want.argmax(1)).sum()), "mean difference": float(np.abs(got - want).mean())}
        for n, p in paths.items(): table[n]["oldest TFLite"] = runtime_floor(p.read_bytes())[0] or "newer than known"
    table = pd.DataFrame(table).T
    short = table[f"ms, {CHARACTERS[0]} characters"]
    table.insert(len(CHARACTERS) + 1, "short memo, times the fp32 file", short["fixed 128, fp32"]/short)
    return table, len(texts)


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--models", nargs="+", default=["memo", "ernie"], help="memo, ernie (its full shape)")
    a.add_argument("--rounds", type=int, default=60, help="interleaved runs a length")
    a = a.parse_args()
    for m in a.models: one_of("models", m, ("memo", "ernie"))
    kept = {}
    for m in a.models:
        table, n = compare(ernie_folder() if m == "ernie" else ModelFolder("memo"), a.rounds)
        print(f"\n{m}: {n} validation memos, LiteRT, 1 thread, batch 1, median of {a.rounds} interleaved runs; {machine()}\n")
        print(table.map(lambda v: f"{v:.3g}" if isinstance(v, float) else v).to_string())
        kept[m] = table.to_dict("index")
    (outputs_root()/"peers.json").write_text(json.dumps(dict(machine=machine(), rounds=a.rounds, tables=kept), indent=1, default=float) + "\n")


if __name__ == "__main__":
    try: main()
    except MemoBertError as e: raise SystemExit(f"peers: {e}")
