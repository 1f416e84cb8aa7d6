"""Fetch OHIF and prepare it for `/ohif/`: `python -m dicomweb.viewer_install DEST [--tarball FILE]`.

The published build expects to live at `/`. Once, on a copy, its public path is rewritten; the rewritten files are
counted, so that a build that looks otherwise is refused instead of installed half working. Text files are compressed
beside the originals. A stamp file, written last, marks the copy as finished.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import click

PACKAGE = "@ohif/app"
VERSION = "3.13.2"
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
STAMP = ".cairn-viewer"
PREPARATION = 2  # raised whenever the steps below change, so that an older copy is made again
PREPARED = f"{PACKAGE} {VERSION} {PREPARATION}"
PATCHED_SCRIPTS = 8
PREFIX = "/ohif/"
_COMPRESSED = frozenset({".js", ".css", ".html", ".json", ".svg", ".wasm"})
_LEFT_OUT = (
    "sw.js",
    "init-service-worker.js",
    "google.js",
    "oidc-client.min.js",
    "silent-refresh.html",
    "manifest.json",
)


class ViewerRefused(click.ClickException):
    """The package is not the one that is pinned, or its build does not look as expected."""


def pack(cache: Path) -> Path:
    """The package's tarball, fetched with the npm client into `cache` unless it is there."""
    tarball = cache / f"ohif-app-{VERSION}.tgz"
    if not tarball.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        click.echo(f"fetching {PACKAGE} {VERSION} (49 MB)")
        command = ["npm", "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(cache)]
        try:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        except FileNotFoundError:
            raise ViewerRefused("npm is not installed; install Node.js, or give --tarball FILE") from None
        except subprocess.CalledProcessError as error:
            raise ViewerRefused(f"npm pack failed with exit code {error.returncode}") from None
    return tarball


def check(tarball: Path) -> None:
    """Raise ViewerRefused unless the tarball is, bit for bit, the one that is pinned (Subresource Integrity)."""
    with tarball.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    if f"sha512-{base64.b64encode(digest).decode()}" != INTEGRITY:
        raise ViewerRefused(f"{tarball.name} is not {PACKAGE} {VERSION}: its SHA-512 differs from the pinned one")


def unpack(tarball: Path, destination: Path) -> None:
    """Put what `package/dist` holds into `destination`, without source maps."""
    with tarfile.open(tarball, "r:gz") as archive:
        for member in archive:
            inside = member.name.removeprefix("package/dist/")
            if inside != member.name and member.isfile() and not inside.endswith(".map"):
                # Not by `extract`: its filters came with Python 3.11.4, and Debian 12 has 3.11.2.
                target, source = (destination / inside).resolve(), archive.extractfile(member)
                if source is None or not target.is_relative_to(destination.resolve()):
                    raise ViewerRefused(f"{tarball.name} holds a file that lies elsewhere")
                target.parent.mkdir(parents=True, exist_ok=True)
                with source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)


def patch(root: Path) -> int:
    """Rewrite the public path of a build from `/` to PREFIX; how many scripts had one. Raises ViewerRefused."""
    patched = 0
    for script in sorted(root.rglob("*.js")):
        text = script.read_text("utf-8", "surrogateescape")
        changed = text.replace('__webpack_require__.p = "/";', f'__webpack_require__.p = "{PREFIX}";')
        if changed != text:
            script.write_text(changed, "utf-8", "surrogateescape")
            patched += 1
    if patched != PATCHED_SCRIPTS:
        raise ViewerRefused(f"{patched} scripts name their public path; {PATCHED_SCRIPTS} were expected")
    for sheet in sorted(root.rglob("*.css")):
        sheet.write_text(sheet.read_text("utf-8").replace("url(/", f"url({PREFIX}"), "utf-8")
    _patch_page(root / "index.html")
    for name in _LEFT_OUT:
        (root / name).unlink(missing_ok=True)
    return patched


def _patch_page(page: Path) -> None:
    text = page.read_text("utf-8")
    service_worker = '<script rel="preload" as="script" type="module" src="/init-service-worker.js"></script>'
    manifest = '<link rel="manifest" href="/manifest.json">'
    if service_worker not in text or manifest not in text or 'PUBLIC_URL="/"' not in text:
        raise ViewerRefused("index.html does not look as expected")
    text = text.replace(service_worker, "")  # its precache list names paths of the root
    text = text.replace(manifest, "")  # fetched without cookies, so it would only be refused
    text = text.replace('src="/', f'src="{PREFIX}').replace('href="/', f'href="{PREFIX}')
    page.write_text(text.replace('PUBLIC_URL="/"', f'PUBLIC_URL="{PREFIX}"'), "utf-8")


def compress(root: Path) -> int:
    """Write FILE.gz beside every text file and WebAssembly module; how many."""
    done = 0
    for file in sorted(root.rglob("*")):
        if file.is_file() and file.suffix in _COMPRESSED and file.stat().st_size > 1024:
            with file.open("rb") as source, gzip.GzipFile(f"{file}.gz", "wb", compresslevel=6, mtime=0) as target:
                shutil.copyfileobj(source, target, 1 << 20)
            done += 1
    return done


def install(destination: Path, tarball: Path) -> None:
    """Prepare the viewer in `destination`, replacing what an earlier run left. Raises ViewerRefused."""
    check(tarball)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".viewer-") as made:
        root = Path(made) / "viewer"
        click.echo("unpacking")
        unpack(tarball, root)
        click.echo(f"moved to {PREFIX}: {patch(root)} scripts")
        click.echo(f"compressed: {compress(root)} files")
        (root / STAMP).write_text(f"{PREPARED}\n", "ascii")
        if destination.exists():
            if not (destination / STAMP).is_file() and any(destination.iterdir()):
                raise ViewerRefused(f"{destination} holds something else; give an empty or new directory")
            shutil.rmtree(destination)
        root.rename(destination)


@click.command()
@click.argument("destination", type=click.Path(path_type=Path, file_okay=False))
@click.option("--tarball", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="a fetched npm package")
@click.option(
    "--cache", type=click.Path(path_type=Path, file_okay=False), default=Path(".cache/npm"), show_default=True
)
def main(destination: Path, tarball: Path | None, cache: Path) -> None:
    """Fetch OHIF from the npm registry and prepare it in DESTINATION for the node to serve."""
    if (destination / STAMP).is_file() and (destination / STAMP).read_text("ascii").strip() == PREPARED:
        click.echo(f"{destination} holds {PACKAGE} {VERSION} already")
        return
    install(destination, tarball or pack(cache))
    click.echo(f"{PACKAGE} {VERSION} is ready in {destination}")


if __name__ == "__main__":
    main()
