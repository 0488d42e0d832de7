PYTHON ?= python3
BIN := .venv/bin
LARGE ?= out/large
CPP := out/cpp
CPP_OPTIONS := -G Ninja -DASAP_WARNINGS_AS_ERRORS=ON -DOnnxRuntime_ROOT=$(CURDIR)/$(CPP)/dependencies \
    -DASAP_FIXTURES=$(CURDIR)/$(CPP)/fixtures
FUZZ_SECONDS ?= 60
INSTALLED := .venv/.installed

.PHONY: demo test quick test-long test-backbones interruptions faults hostile large accuracy bench cpp cpp-sanitized lint clean

# A fresh clone to an answer: install, export the built-in checkpoint with engines, verify, ask.
demo: $(INSTALLED)
	$(BIN)/asap-export --engine trt --output demo.bundle --overwrite
	$(BIN)/asap-export verify demo.bundle
	$(BIN)/asap-export run demo.bundle --image examples/images/things.png --prompt "What number is in the red box?"

test: lint cpp
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2

# What takes a minute and a half on 2 cores, between two changes: all that needs no export and no C++ compiler.
quick: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m "not slow and not backbones and not long"

# Slower variants of what make test checks in one form: other ways to prune, more backbones, kills in the middle.
test-long: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m long

# Every backbone in every dtype, pruned and dense: 84 bundles.
test-backbones: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m backbones

# Ctrl-C at 50 moments of an export, one after the other: it ends at each of them and leaves nothing.
interruptions: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m moments

# Wiring faults planted in both forms of the demo's decoder, in fp32 and in fp16: verify must find every one.
faults: $(INSTALLED)
	$(BIN)/python tools/plant_faults.py --json out/faults/faults.json

# Hostile checkpoints, templates, bundles, images and prompts, each with limits: all to be refused in one line.
hostile: $(INSTALLED)
	$(BIN)/python tools/hostile --json out/hostile/hostile.json

# Accuracy under pruning of the demo checkpoint, swept and tested, as docs/accuracy.md has it: two hours on 2 cores.
accuracy: $(INSTALLED)
	$(BIN)/python tools/measure_accuracy

# Speed and memory beside transformers on a quarter of Vicuna 7B's width, random weights: under 20 minutes on 2 cores
# with 24 GB; then the project's targets. docs/performance.md has the tables.
bench: $(INSTALLED)
	$(BIN)/asap-export bench --like llava-v1.6-vicuna-7b --scale 0.25 --work out/bench --keep 478 \
	    --rounds 3 --cache-lengths 128,542,1024,2944 --decode-steps 4 --profile \
	    --curve 576,1176,2340,2928,5856,11712 --plot docs/pictures/bench.svg \
	    --output docs/measurements/bench.json --markdown
	$(BIN)/python tools/judge_bench.py docs/measurements/bench.json --markdown

# The C++ runtime: what it needs (Debian's packages), the library, its tests. Variables for CMake go into CMAKE_OPTIONS.
cpp: $(INSTALLED)
	engines/cpp/dependencies.sh $(CPP)/dependencies $$($(BIN)/python -c 'import onnxruntime as o; print(o.__path__[0])')
	cmake -S engines/cpp -B $(CPP)/release $(CPP_OPTIONS) -DOpenVINO_ROOT=$$(echo $(CURDIR)/.venv/lib/python3*/site-packages/openvino) $(CMAKE_OPTIONS)
	cmake --build $(CPP)/release
	$(BIN)/python -m tests.cpp.fixtures $(CPP)/fixtures
	ctest --test-dir $(CPP)/release --output-on-failure --parallel 2

# The same under AddressSanitizer and UndefinedBehaviorSanitizer, then FUZZ_SECONDS of any bytes for each reader of files.
cpp-sanitized: cpp
	CLANG=1 engines/cpp/dependencies.sh $(CPP)/dependencies
	cmake -S engines/cpp -B $(CPP)/sanitized $(CPP_OPTIONS) -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	    -DASAP_SANITIZE=address,undefined -DASAP_BUILD_FUZZERS=ON $(CMAKE_OPTIONS)
	cmake --build $(CPP)/sanitized
	ctest --test-dir $(CPP)/sanitized --output-on-failure --parallel 2
	OMP_NUM_THREADS=1 ASAP_CPP_BUILD=$(CURDIR)/$(CPP)/sanitized $(BIN)/pytest -q -n 2 tests/cpp
	engines/cpp/fuzz/run.sh $(CPP)/sanitized/fuzz $(CPP)/fixtures/seeds $(CPP)/findings $(FUZZ_SECONDS)

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	find engines/cpp -name '*.?pp' | xargs $(BIN)/clang-format --dry-run --Werror

# A 7B model with random weights from checkpoint to engine: 40 GB of disk in LARGE, 24 GB of memory, 20 minutes.
large: $(INSTALLED)
	$(BIN)/python tools/measure_large.py $(LARGE)

clean:
	rm -rf .venv demo.bundle

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[export,rtx,dev]'
	touch $@
