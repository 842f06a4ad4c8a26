PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
NBS    := 00_core 00a_data 00b_finetune 00f_vocabulary 00g_heads 00c_prune 00d_joint 00e_qat 01_export 01a_graph 01b_gather_int32 01c_unsqueeze_11 01e_bounded_mask 01f_first_token 01d_to_tf 02_quantize 02a_quantize_onnx 02b_runtime_floor 02c_metadata 02d_lengths 02e_inspect 02f_delegates 02g_text_in 02h_learned_scales 03_evaluate 03a_gate 03b_encoder 03c_ladder 03d_calibration 03e_variance 03f_sweep 03g_report 03h_costs 03i_compress 03j_sizes 03k_other_heads 04_classify 04a_tokens 04b_archive 04c_cluster 04d_browser 05_command index
RUNS   := outputs/memo/runs
CHROMIUM := $(firstword $(foreach c,chromium chromium-browser google-chrome,$(shell command -v $(c) 2>/dev/null)))
NPM    := $(shell command -v npm 2>/dev/null)

.PHONY: run test package-tests notebook-tests runtimes clients node browser cluster install env clean export notebooks bundle

env: $(VENV)/ready

$(VENV)/ready: settings.ini setup.py constraints.txt
	$(PYTHON) -c "import sys; assert (3, 10) <= sys.version_info[:2] <= (3, 11), 'memo_bert needs Python 3.10 or 3.11; name one: make PYTHON=python3.11'"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --use-pep517 --constraint constraints.txt --editable ".[workbook,dev]"
	touch $@

run: env            ## every notebook headless, then the table of results
	mkdir -p $(RUNS)
	for n in $(NBS); do echo "== $$n" && $(BIN)/papermill --cwd nbs --no-log-output --progress-bar nbs/$$n.ipynb $(RUNS)/$$n.ipynb || exit 1; done
	for m in fp32 fp16 int8 int16x8; do echo "== 02_quantize mode $$m" && $(BIN)/papermill --cwd nbs --progress-bar nbs/02_quantize.ipynb $(RUNS)/02_quantize.$$m.ipynb -p mode $$m || exit 1; done
	$(BIN)/python -c "import json; from memo_bert.report import results_table; print(results_table(json.load(open('outputs/memo/report.json'))['artefacts']))"

test: env           ## pytest; beside it what the notebooks assert, and one headless run
	$(MAKE) --jobs 2 --output-sync=target package-tests notebook-tests

package-tests: env
	$(BIN)/pytest -q -m "not clients and not runtimes and not node and not ray and not install$(if $(and $(CHROMIUM),$(NPM)),, and not browser)" tests

notebook-tests: env
	MEMO_BERT_OUTPUTS=$(CURDIR)/outputs/.test $(BIN)/nbdev_test --n_workers 1 --timing --skip_file_re '^(00[cde]_|01f_first_token|02b_runtime_floor|02c_metadata|02[fgh]_|03|04[a-d]_|index)'
	mkdir -p outputs/.test && cd nbs && MEMO_BERT_OUTPUTS=$(CURDIR)/outputs/.test $(abspath $(BIN))/papermill --progress-bar 02_quantize.ipynb $(CURDIR)/outputs/.test/02_quantize.int8.ipynb -p mode int8

runtimes: env       ## files for old runtimes on the runtimes themselves, as far as there are Pythons for them (fetches them)
	$(BIN)/pytest -q -m runtimes tests

clients: env        ## the real MediaPipe, TFLite Task Library and optimum (fetches them, 0.8 GB and more)
	$(BIN)/pytest -q -m clients tests

node: env           ## transformers.js in Node (fetches it, 0.6 GB)
	$(BIN)/pytest -q -m node tests

browser: env        ## the report and the page in a real Chromium (the system's)
	$(BIN)/pytest -q -m browser tests

cluster: env        ## a local Ray cluster, with a worker killed
	$(BIN)/pytest -q -m ray tests

install: env        ## the client alone in an empty environment
	$(BIN)/pytest -q -m install tests

export: env         ## notebooks to package
	$(BIN)/nbdev_export && $(BIN)/nbdev_clean

notebooks: env      ## execute every notebook in place, as it is committed
	cd nbs && for n in $(NBS); do $(abspath $(BIN))/jupyter nbconvert --to notebook --execute --inplace --log-level=ERROR --ExecutePreprocessor.timeout=3600 $$n.ipynb || exit 1; done
	$(BIN)/nbdev_export && $(BIN)/nbdev_clean

bundle: env         ## train the bundled model again from nothing and put it, and its PC file, into the package
	cd nbs && $(abspath $(BIN))/papermill --progress-bar 00b_finetune.ipynb ../$(RUNS)/00b_finetune.first.ipynb -p retrain True -p bundle True -p epochs 6
	cd nbs && $(abspath $(BIN))/papermill --progress-bar 00b_finetune.ipynb ../$(RUNS)/00b_finetune.second.ipynb -p retrain True -p bundle True -p pretrain_steps 0 -p epochs 3 -p lr 2e-4 -p seed 1
	cd nbs && for n in 03_evaluate 04a_tokens; do $(abspath $(BIN))/papermill --progress-bar $$n.ipynb ../$(RUNS)/$$n.ipynb || exit 1; done
	for f in onnx/model_int8.onnx golden.json normalize.json; do cp outputs/memo/$$f memo_bert/assets/memo/$$f; done
	$(BIN)/python -c "from memo_bert.core import *; home, m = assets('memo'), read_manifest(ModelFolder('memo').path); write_manifest(home, {n: e | entry(home/n) for n, e in m['files'].items() if (home/n).is_file()}, **m['thresholds'])"

clean:
	rm -rf $(VENV) outputs/.test build dist *.egg-info
