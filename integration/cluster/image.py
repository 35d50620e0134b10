#!/usr/bin/env python3
"""Writes a container image without a container engine: a docker-archive tar with one layer, for `ctr images import`.

    image.py NAME OUT --entrypoint PATH [--user UID] [--cmd ARG]... [--also NAME]... [--link PATH:TARGET]... SRC:DST[:MODE]...

Every SRC is copied to DST (mode 0755 unless given, in octal). The same inputs give the same bytes: no times, no owners.
"""

import argparse
import hashlib
import io
import json
import pathlib
import tarfile


def layer_of(files: list[str], links: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        made = set()

        def directory(path: str, mode: int) -> None:
            if path and path not in made:
                directory(str(pathlib.PurePosixPath(path).parent).strip("."), 0o755)
                entry = tarfile.TarInfo(path)
                entry.type, entry.mode = tarfile.DIRTYPE, mode
                layer.addfile(entry)
                made.add(path)

        directory("tmp", 0o1777)
        directory("etc", 0o755)
        for item in files:
            source, destination, *mode = item.split(":")
            destination = destination.strip("/")
            directory(str(pathlib.PurePosixPath(destination).parent).strip("."), 0o755)
            content = pathlib.Path(source).read_bytes()
            entry = tarfile.TarInfo(destination)
            entry.size, entry.mode = len(content), int(mode[0], 8) if mode else 0o755
            layer.addfile(entry, io.BytesIO(content))
        for item in links:
            path, target = item.split(":")
            entry = tarfile.TarInfo(path.strip("/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            layer.addfile(entry)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("out")
    parser.add_argument("--entrypoint", required=True)
    parser.add_argument("--cmd", action="append", default=[])
    parser.add_argument("--user", default="")
    parser.add_argument("--also", action="append", default=[], metavar="NAME", help="another name of the same image")
    parser.add_argument("--link", action="append", default=[], metavar="PATH:TARGET")
    parser.add_argument("files", nargs="+", metavar="SRC:DST[:MODE]")
    arguments = parser.parse_args()

    layer = layer_of(arguments.files, arguments.link)
    layer_digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": [arguments.entrypoint],
            "Cmd": arguments.cmd,
            "User": arguments.user,
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        "history": [{"created_by": "integration/cluster/image.py"}],
    }).encode()
    config_digest = hashlib.sha256(config).hexdigest()
    manifest = json.dumps([{
        "Config": f"{config_digest}.json",
        "RepoTags": [arguments.name, *arguments.also],
        "Layers": [f"{layer_digest}/layer.tar"],
    }]).encode()
    with tarfile.open(arguments.out, "w") as archive:
        for name, content in [
            (f"{config_digest}.json", config),
            (f"{layer_digest}/layer.tar", layer),
            ("manifest.json", manifest),
        ]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    main()
