"""The notebooks as committed: in step with the package, one parameters cell, outputs clean."""
import json, re, subprocess, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT/"nbs").glob("*.ipynb"))
LIBRARY = ("00_core", "01a_graph", "index")


def cells(path): return [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_one_parameters_cell(path):
    tagged = [c for c in cells(path) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == (0 if path.stem in LIBRARY else 1)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_are_there_and_clean(path):
    outputs = [o for c in cells(path) for o in c["outputs"]]
    text = json.dumps(outputs, ensure_ascii=False)
    assert outputs, "committed without outputs"
    assert not [o for o in outputs if o["output_type"] == "error"] and "Traceback (most recent" not in text
    assert not [o for o in outputs if o.get("name") == "stderr"]
    assert not re.search(r"/(root|home|tmp|work|Users)/\w", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_exported_cells_are_short(path):
    exported = ["".join(c["source"]) for c in cells(path) if "".join(c["source"]).startswith("#| export")]
    assert all(len([l for l in s.splitlines() if l.strip()]) <= 26 for s in exported)


def test_package_is_in_step(tmp_path):
    before = {p: p.read_bytes() for p in (ROOT/"memo_bert").rglob("*.py")}
    subprocess.run([Path(sys.executable).parent/"nbdev_export"], cwd=ROOT, check=True, capture_output=True)
    after = {p: p.read_bytes() for p in (ROOT/"memo_bert").rglob("*.py")}
    changed = [p.name for p in after if after[p] != before.get(p)]
    for p, b in before.items(): p.write_bytes(b)
    assert not changed
