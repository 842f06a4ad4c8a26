"Sweeps over a small notebook: a grid, failures beside successes, and what a second call repeats."
import nbformat, pytest
from nbformat.v4 import new_code_cell, new_notebook

from memo_bert.core import MemoBertError
from memo_bert.sweep import grid, sweep

CODE = """from memo_bert.core import MemoBertError, ModelFolder
if n > 2: raise MemoBertError(f"n is {n}; at most 2.")
folder = ModelFolder("memo")
folder.build("twice.txt", lambda tmp: tmp.write_text(str(2*n)), step="twice", n=n)
folder.record("twice.txt", metrics=dict(twice=2*n))"""


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMO_BERT_OUTPUTS", str(tmp_path/"outputs"))
    nb = new_notebook(cells=[new_code_cell('n: int = 1\nword: str = "a"', metadata={"tags": ["parameters"]}), new_code_cell(CODE)])
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(nb, tmp_path/"small.ipynb")
    return tmp_path/"small.ipynb"


def test_grid():
    assert grid([("a", "1,2"), ("b", "x")]) == [[("a", "1"), ("b", "x")], [("a", "2"), ("b", "x")]]


def test_runs_fails_and_resumes(notebook):
    table = sweep(str(notebook), [("n", "1,2,3"), ("word", "a")], jobs=2)
    assert table.n.tolist() == [1, 2, 3] and table.status.tolist() == ["done", "done", "failed"]
    assert table.twice.tolist()[:2] == [2, 4] and table.error[2] == "MemoBertError: n is 3; at most 2."
    out = notebook.parent/"outputs/sweeps/small"
    assert (out/"table.csv").exists() and (out/"small.3.a/small.ipynb").exists()
    again = sweep(str(notebook), [("n", "1,2,3"), ("word", "a")], jobs=2)
    assert again.seconds.isna().tolist() == [True, True, False]
    nb = nbformat.read(notebook, 4)
    nb.cells[1].source += "\n1"
    nbformat.write(nb, notebook)
    assert sweep(str(notebook), [("n", "1"), ("word", "a")]).seconds.notna().all()


def test_bad_input(notebook):
    with pytest.raises(MemoBertError, match="The parameter is 'm'; choose one of: n, word"): sweep(str(notebook), [("m", "1")])
    with pytest.raises(MemoBertError, match="must be of type int"): sweep(str(notebook), [("n", "one")])
    with pytest.raises(MemoBertError, match="at least 1"): sweep(str(notebook), [("n", "1")], jobs=0)
