"""Our files beside what others write from the same weights, in one run on one machine.

    python benchmarks/peers.py            # the bundled model and ERNIE 3.0 nano's full shape
    python benchmarks/peers.py --models memo

The peers install themselves into environments of their own below outputs/.environments (about 8 GB at the first run).
"""
import argparse, json, subprocess, tempfile, time
from pathlib import Path
import numpy as np, onnx, pandas as pd, torch
from ai_edge_litert.interpreter import Interpreter
from onnxruntime.quantization import quantize_dynamic
from transformers import BertConfig, BertForSequenceClassification, ErnieConfig, ErnieForSequenceClassification
from memo_bert.core import MemoBertError, ModelFolder, atomic, figure_style, machine, one_of, outputs_root, quiet, side_by_side, versions
from memo_bert.data import load_data
from memo_bert.evaluate import fresh_process
from memo_bert.export import INPUTS, encode, onnx_file, torch_outputs, with_activation
from memo_bert.finetune import place, read_model
from memo_bert.graph import apply_passes, load_graph
from memo_bert.inspect import inspect_model
from memo_bert.lengths import lengths_file
from memo_bert.quantize_onnx import open_onnx, pc_file
from memo_bert.runtime_floor import side_environment
from memo_bert.to_tf import saved_model, tf, to_saved_model

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


def execute(command):
    out = subprocess.run([*map(str, command)], capture_output=True, text=True)
    if out.returncode: raise MemoBertError((out.stderr.strip() or out.stdout.strip()).splitlines()[-1])


def ours(folder, work): return lengths_file(ModelFolder(str(folder.path), root=work))


def ours_pc(folder, work): return pc_file(ModelFolder(str(folder.path), root=work))


def litert_torch(folder, work):
    execute([environment("litert-torch"), HERE/"litert_torch_file.py", folder.path, LONGEST, work/"litert_torch.tflite"])
    return work/"litert_torch.tflite"


def onnx2tf(folder, work):
    python = environment("onnx2tf")
    execute([python, "-m", "onnxsim", onnx_file(folder, LONGEST), work/"simple.onnx"])
    execute([python, "-m", "onnx2tf", "-i", work/"simple.onnx", "-o", work/"onnx2tf", "-odrqt", "-n"])
    return work/"onnx2tf/simple_dynamic_range_quant.tflite"


def five_scripts(folder, work, quantized=False):
    "One length, the graph as exported, indices to int32, opset 12, onnx-tf, TensorFlow's converter with its defaults."
    onnx.save(apply_passes(load_graph(onnx_file(folder, LONGEST)), "gather_int32", "unsqueeze_11")[0], work/"old.onnx")
    path, source = work/f"old_{quantized}.tflite", to_saved_model(work/"old.onnx", work/f"old_{quantized}")
    converter = tf.lite.TFLiteConverter.from_saved_model(str(source))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]*quantized
    with quiet(): path.write_bytes(converter.convert())
    return path


def people_onnx(folder, work):
    "torch's exporter with free axes, then `quantize_dynamic` with its defaults."
    net, tokenizer = read_model(str(folder.path))
    x = tuple(torch.tensor(v) for v in encode(tokenizer, ["开会"], 16).values())
    axes = {n: {0: "batch", 1: "tokens"} for n in INPUTS} | {"logits": {0: "batch"}}
    with quiet():
        torch.onnx.export(Logits(net), x, str(work/"people.onnx"), input_names=list(INPUTS), output_names=["logits"], dynamic_axes=axes, opset_version=17, dynamo=False)
        quantize_dynamic(str(work/"people.onnx"), str(work/"people_int8.onnx"))
    return work/"people_int8.onnx"


class Logits(torch.nn.Module):
    "The classifier with the inputs of INPUTS, in their order."
    def __init__(self, net): super().__init__(); self.net = net
    def forward(self, *ids): return self.net(**dict(zip(INPUTS, ids))).logits


def as_bert(folder, out):
    "The folder's classifier as a BERT, which computes the same where ERNIE's task types are zero; optimum does not know ERNIE."
    net, tokenizer = read_model(str(folder.path))
    bert = BertForSequenceClassification(BertConfig(**{k: v for k, v in net.config.to_dict().items() if k not in ("model_type", "architectures")}))
    weights = {n.replace("ernie.", "bert."): w for n, w in net.state_dict().items() if "task_type" not in n}
    bert.load_state_dict(weights); bert.save_pretrained(out); tokenizer.save_pretrained(out)
    return out


def hugging_face(folder, work, how):
    execute([environment("optimum"), HERE/"hugging_face_file.py", how, as_bert(folder, work/"bert"), work/how])
    return max((work/how).rglob("*.onnx"), key=lambda f: "quantized" in f.name or "qint8" in f.name)


FIXED = "five scripts, fp32, 128 tokens"
FILES = {"phone: memo_bert dynamic_int8, lengths": ours, "phone: litert-torch dynamic_wi8": litert_torch, "phone: onnx2tf dynamic range": onnx2tf,
         "phone: five scripts, default quantization": lambda f, w: five_scripts(f, w, True), f"phone: {FIXED}": five_scripts,
         "PC: memo_bert int8": ours_pc, "PC: torch.onnx.export, quantize_dynamic": people_onnx,
         "PC: optimum, avx512_vnni (as BERT)": lambda f, w: hugging_face(f, w, "optimum"), "PC: sentence-transformers, avx512_vnni (as BERT)": lambda f, w: hugging_face(f, w, "sentence-transformers")}


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


def on_litert(path):
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


def on_onnxruntime(path):
    "A function from one memo's arrays `[1, 128]` to its logits at the memo's own length, on ONNX Runtime with one thread."
    session = open_onnx(path)
    names = [i.name for i in session.get_inputs()]
    def call(x):
        n = int(x["attention_mask"].sum())
        return session.run(None, {k: x[k][:, :n] for k in names})[0][0]
    return call


def make_all(folder, work):
    "{name: path} of what could be made, and {name: a row with seconds, or why not} of all."
    saved_model(folder, LONGEST)
    paths, table = {}, {}
    for n, make in FILES.items():
        start = time.perf_counter()
        (d := work/n.replace("/", " ").replace(":", "")).mkdir()
        try: paths[n] = make(folder, d)
        except MemoBertError as e: table[n] = {"converts": str(e)}
        else: table[n] = {"converts": "yes", "seconds": time.perf_counter() - start, "MB": paths[n].stat().st_size/1e6}
    return paths, table


def compare(folder, rounds):
    "DataFrame of FILES made from `folder`: seconds to convert, MB, median ms at each of CHARACTERS, peak MB, flips and mean logit difference against PyTorch, oldest runtime."
    net, tokenizer = read_model(str(folder.path))
    texts = load_data()["val"].text.tolist()
    x = encode(tokenizer, texts, LONGEST)
    want = torch_outputs(with_activation(net, "gelu_new"), x)["logits"]
    row = lambda a, k: {n: v[k:k + 1] for n, v in a.items()}
    with tempfile.TemporaryDirectory() as d:
        paths, table = make_all(folder, Path(d))
        calls = {n: (on_onnxruntime if p.suffix == ".onnx" else on_litert)(p) for n, p in paths.items()}
        for c in CHARACTERS:
            one = encode(tokenizer, ["记"*c], LONGEST)
            for n, t in side_by_side({n: lambda f=f: f(one) for n, f in calls.items()}, rounds=rounds).items(): table[n][f"ms, {c} characters"] = 1000*float(np.median(t))
        for n, f in calls.items():
            got, floor = np.stack([f(row(x, k)) for k in range(len(texts))]), inspect_model(paths[n])["runtime_floor"]
            table[n] |= {"peak MB": fresh_process(paths[n], LONGEST)[1], "flips": int((got.argmax(1) != want.argmax(1)).sum()), "mean difference": float(np.abs(got - want).mean()),
                         "oldest runtime": f"{floor['runtime']} {floor['release'] or 'newer than known'}"}
    table = pd.DataFrame(table).T
    short = table[f"ms, {CHARACTERS[0]} characters"]
    table.insert(table.columns.get_loc("peak MB"), "short memo, times the fp32 file", short[f"phone: {FIXED}"]/short)
    return table, len(texts)


def markdown(table):
    "The table for a README."
    digits = {"seconds": 1, "MB": 2, "peak MB": 0, "short memo, times the fp32 file": 1, "flips": 0, "mean difference": 4} | {f"ms, {c} characters": 2 for c in CHARACTERS}
    shown = table.copy()
    for c, n in digits.items(): shown[c] = [("" if pd.isna(v) else f"{v:.1g}" if 0 < v < .5*10**-n else f"{v:.{n}f}") for v in table[c].astype(float)]
    shown = shown.fillna("").rename_axis("file").reset_index()
    line = lambda cells: f"| {' | '.join(map(str, cells))} |"
    return "\n".join([line(shown.columns), line("---" for _ in shown.columns), *map(line, shown.to_numpy())])


def draw(tables, path):
    "Megabytes against milliseconds of a short memo for each model and file, as a PNG at `path`."
    import matplotlib.pyplot as plt
    figure_style()
    fig, axes = plt.subplots(1, len(tables), figsize=(6.5*len(tables), 4.6), squeeze=False)
    for ax, (model, t) in zip(axes[0], tables.items()):
        for n, r in t[t.converts == "yes"].iterrows():
            mine, ms = "memo_bert" in n, f"ms, {CHARACTERS[0]} characters"
            ax.scatter(r[ms], r.MB, color="#2a7" if mine else "#a55", s=60)
            ax.annotate(n.split(": ")[1], (r[ms], r.MB), xytext=(5, 5), textcoords="offset points", fontsize=8, color="#164" if mine else "#444")
        ax.set(xscale="log", yscale="log", xlabel=f"ms for a memo of {CHARACTERS[0]} characters, log scale", ylabel="MB, log scale", title=f"{model}：越靠左下越好 lower left is better")
        ax.margins(.25)
    with atomic(path) as tmp: fig.savefig(tmp, metadata={"Software": None})


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--models", nargs="+", default=["memo", "ernie"], help="memo, ernie (its full shape)")
    a.add_argument("--rounds", type=int, default=60, help="interleaved runs a length")
    a = a.parse_args()
    for m in a.models: one_of("models", m, ("memo", "ernie"))
    tables = {}
    for m in a.models:
        tables[m], n = compare(ernie_folder() if m == "ernie" else ModelFolder("memo"), a.rounds)
        print(f"\n{m}: {n} validation memos, 1 thread, batch 1, median of {a.rounds} interleaved runs; {machine()}\n\n{markdown(tables[m])}", flush=True)
    draw(tables, outputs_root()/"peers.png")
    kept = dict(machine=machine(), versions=versions(), rounds=a.rounds, memos=n, tables={m: t.to_dict("index") for m, t in tables.items()})
    with atomic(outputs_root()/"peers.json") as tmp: tmp.write_text(json.dumps(kept, indent=1, default=float) + "\n")


if __name__ == "__main__":
    try: main()
    except MemoBertError as e: raise SystemExit(f"peers: {e}")
