"""python check_golden.py golden.json tokenizer.py

tokenizer.py has tokenize(text) -> ids, and may have scores(text) -> one number a label, with file = "onnx/model_int8.onnx" to say whose tolerance holds."""
import json, runpy, struct, sys


def text_of(case):
    if "text" in case: return case["text"]
    return struct.pack(f"<{len(case['utf16'])}H", *case["utf16"]).decode("utf-16-le", "surrogatepass")


def check(golden, client):
    "{class: [what differs]}"
    wrong, tolerance = {}, golden["tolerance"][client.get("file", golden["scores_from"])]
    for c in golden["cases"]:
        text = text_of(c)
        got, said = [int(i) for i in client["tokenize"](text)], []
        if got != c["ids"]: said.append(f"{ascii(text[:40])}\n  want {c['ids'][:20]}\n  got  {got[:20]}")
        elif "scores" in client and (apart := max(abs(a - b) for a, b in zip(client["scores"](text), c["scores"], strict=True))) > tolerance:
            said.append(f"{ascii(text[:40])}: scores apart {apart:.4f}, more than {tolerance}")
        if said: wrong.setdefault(c["group"], []).extend(said)
    return wrong


if __name__ == "__main__":
    if len(sys.argv) != 3: sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as f: golden = json.load(f)
    wrong = check(golden, runpy.run_path(sys.argv[2]))
    for group, said in wrong.items(): print(f"{group}: {len(said)} wrong, first {said[0]}")
    count = sum(map(len, wrong.values()))
    print(f"{len(golden['cases']) - count} of {len(golden['cases'])} equal")
    sys.exit(count > 0)
