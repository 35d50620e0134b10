"""A mesh of one's own: `gamut up` on a copy of examples/canary, with requests coming in."""

import pathlib
import queue
import re
import shutil
import subprocess
import tempfile
import threading

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# More than anything here takes, on a machine that does much else.
PATIENCE = 60


class Mesh:
    """`gamut up` as long as the `with` lasts."""

    def __init__(self, gamut, name, example=None):
        self.gamut, self.name, self.example = gamut, name, example

    def __enter__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="gamut-page-"))
        self.manifests = self.directory / (self.example or "manifests")
        if self.example:
            shutil.copytree(REPOSITORY / self.example, self.manifests)
        else:
            self.manifests.mkdir()
        command = [self.gamut, "up", "--name", self.name, "-f", self.manifests.relative_to(self.directory)]
        self.process = subprocess.Popen(command, cwd=self.directory, stderr=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.url = self.until(r"live page at (\S+)").group(1)
        self.until(r"^gamut: ready")
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.directory)

    def _read(self):
        for line in self.process.stderr:
            self.lines.put(line)
        self.lines.put(None)

    def until(self, pattern):
        """Waits for a line of `gamut up`."""
        while True:
            line = self.lines.get(timeout=PATIENCE)
            assert line is not None, f"gamut up has ended before it said {pattern!r}"
            if found := re.search(pattern, line):
                return found

    def edit(self, file, *changes):
        """Saves a manifest as an editor does, and waits until it is in effect everywhere."""
        path = self.manifests / file
        text = path.read_text()
        for old, new in changes:
            assert old in text, f"{file} has no {old!r}"
            text = text.replace(old, new)
        self.save(file, text)

    def save(self, file, text):
        """As `edit`, a whole file."""
        new = self.directory / "new"
        new.write_text(text)
        new.rename(self.manifests / file)
        self.until(r"in effect everywhere")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE)


class Load:
    """Strangers that call `web`, a few hundred in a second, as long as the `with` lasts."""

    def __init__(self, mesh):
        self.mesh = mesh

    def __enter__(self):
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._call)
        self.thread.start()

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join(PATIENCE)

    def _call(self):
        load = [self.mesh.gamut, "echo", "load", "http://web/", "--count", "150"]
        command = [self.mesh.gamut, "exec", "--name", self.mesh.name, "-n", "shop", "deploy/client", "--", *load]
        while not self.ended.wait(0.5):
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
