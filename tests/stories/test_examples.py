"""The clients in other languages, run as their first lines say, against a real server. Each needs its toolchain, and
the registries that its packages come from.
"""

import http.server
import os
import shutil
import socket
import subprocess
import threading
from functools import partial
from pathlib import Path

import pytest

from tests.fakes import COLORS, picture
from tests.faults.served import Served, until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GO_OF_DEBIAN = Path("/usr/share/gocode")


@pytest.fixture
def server(models):
    one = Served(models, "--workers", "1")
    yield one
    assert one.stop() == 0


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "red.png").write_bytes(picture(COLORS["red"]))
    (tmp_path / "bad.png").write_bytes(b"bad")
    return tmp_path


@pytest.fixture
def example(tmp_path):
    """A copy of an example, which it may write into, beside the contract."""

    def copied(name):
        shutil.copytree(
            ROOT / "examples" / name, tmp_path / "examples" / name, ignore=shutil.ignore_patterns("node_modules")
        )
        (tmp_path / "proto").symlink_to(ROOT / "proto")
        return tmp_path / "examples" / name

    return copied


def needs(*programs):
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def run(*words, cwd, seconds=300, **environment):
    done = subprocess.run(words, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=seconds)
    return done.returncode, done.stdout, done.stderr


def install(folder):
    code, _, error = run("npm", "install", "--no-audit", "--no-fund", cwd=folder)
    if code and ("ENOTFOUND" in error or "EAI_AGAIN" in error):
        pytest.skip("npm reaches no registry")
    assert code == 0, error


def check_command(answered, pictures):
    """One bad picture does not stop the others."""
    code, out, error = answered
    assert out.startswith(f"{pictures}/red.png: red 0.9"), error
    assert f"{pictures}/bad.png: " in error
    assert code == 1


def test_node(server, pictures, example):
    needs("node", "npm")
    folder = example("node")
    install(folder)
    words = "node", "classify.js", server.address, f"{pictures}/bad.png", f"{pictures}/red.png"
    check_command(run(*words, cwd=folder), pictures)


def test_go(server, pictures, example):
    needs("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc")
    folder = example("go")
    code, _, error = run("sh", "generate.sh", cwd=folder)
    assert code == 0, error
    environment = {"GOFLAGS": "-p=1"}
    if (GO_OF_DEBIAN / "src/google.golang.org/grpc").is_dir():
        path = pictures / "gopath"
        (path / "src/taxon.example").mkdir(parents=True)
        folder = folder.rename(path / "src/taxon.example/classify")
        environment |= {"GO111MODULE": "off", "GOPATH": f"{path}:{GO_OF_DEBIAN}"}
    elif run("go", "mod", "tidy", cwd=folder)[0]:
        pytest.skip("go reaches no proxy of modules")
    code, _, error = run("go", "build", "-o", "classify", ".", cwd=folder, seconds=600, **environment)
    assert code == 0, error
    words = "./classify", server.address, f"{pictures}/bad.png", f"{pictures}/red.png"
    check_command(run(*words, cwd=folder), pictures)


def test_browser(server, pictures, example, tmp_path):
    """A page in Chromium, by gRPC-Web through Envoy, from another origin."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    envoy = os.environ.get("TAXON_ENVOY") or shutil.which("envoy")
    if envoy is None:
        pytest.skip("no Envoy: put it into the PATH, or name it in TAXON_ENVOY")
    needs("npm")
    folder = example("browser")
    install(folder)
    code, _, error = run("npm", "run", "build", cwd=folder)
    assert code == 0, error
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    recipe = (ROOT / "deploy/envoy/grpc_web.yaml").read_text(encoding="utf-8")
    (tmp_path / "envoy.yaml").write_text(recipe.replace("8081", str(port)).replace("50051", str(server.port)))
    words = [envoy, "-c", tmp_path / "envoy.yaml", "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"]
    balancer = subprocess.Popen(list(map(str, words)))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=pages.serve_forever).start()
    try:
        until(lambda: is_open(port))
        with playwright.sync_playwright() as driver:
            try:
                browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            except playwright.Error as error:
                pytest.skip(f"no Chromium: {error}")
            page = browser.new_page()
            page.goto(f"http://localhost:{pages.server_port}/index.html?server=http://127.0.0.1:{port}")
            for name, said in (("red.png", "red 0.9"), ("bad.png", "InvalidArgument: the bytes are not a JPEG")):
                page.locator("input:enabled").set_input_files(pictures / name)
                page.locator("output", has_text=said).wait_for(timeout=20_000)
            browser.close()
    finally:
        pages.shutdown()
        pages.server_close()
        balancer.kill()
        balancer.wait()


def is_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
