"""OHIF under /ohif/: preparing a build, and serving it; the build here is a small one of the same form."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from node_in_memory import STUDY, Client, FakeNode

from bridge.model import SearchPage
from dicomweb import viewer, viewer_install
from dicomweb.viewer_install import STAMP, ViewerRefused

PAGE = (
    '<!doctype html><html><head><link rel="manifest" href="/manifest.json">'
    '<link rel="icon" href="/assets/favicon.ico"><script>window.PUBLIC_URL="/"</script>'
    '<script rel="preload" as="script" src="/app-config.js"></script>'
    '<script rel="preload" as="script" type="module" src="/init-service-worker.js"></script>'
    '<script defer src="/app.bundle.0123456789abcdef.js"></script></head></html>'
)
SCRIPT = '__webpack_require__.p = "/";' + "var filling;" * 200


def build(path: Path, scripts: int = viewer_install.PATCHED_SCRIPTS, page: str = PAGE) -> Path:
    files = {"index.html": page, "app.bundle.css": "@font-face{src:url(/a.woff2)}", "sw.js": "x", "a.js.map": "x"}
    files |= {f"{n}.bundle.0123456789abcde{n:x}.js": SCRIPT for n in range(scripts)}
    tarball = path / "ohif.tgz"
    with tarfile.open(tarball, "w:gz") as archive:
        for name, text in {"package/README.md": "no", **{f"package/dist/{n}": t for n, t in files.items()}}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return tarball


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: FakeNode) -> Path:
    monkeypatch.setattr(viewer_install, "check", lambda tarball: None)  # this build is not the pinned one
    viewer_install.install(tmp_path / "viewer", build(tmp_path))
    node.settings.web.viewer_dir = tmp_path / "viewer"
    return tmp_path / "viewer"


def test_a_build_is_moved_below_the_prefix(installed: Path) -> None:
    page = (installed / "index.html").read_text()
    assert 'href="/ohif/assets/favicon.ico"' in page and "manifest" not in page
    assert 'PUBLIC_URL="/ohif/"' in page
    assert 'src="/ohif/app.bundle' in page and "service-worker" not in page
    assert "url(/ohif/a.woff2)" in (installed / "app.bundle.css").read_text()
    scripts = list(installed.glob("*.bundle.*.js"))
    assert len(scripts) == viewer_install.PATCHED_SCRIPTS
    for script in scripts:
        assert script.read_text().startswith('__webpack_require__.p = "/ohif/";')
        assert gzip.decompress(Path(f"{script}.gz").read_bytes()) == script.read_bytes()
    assert not any((installed / name).exists() for name in ("sw.js", "a.js.map", "README.md"))


def test_a_build_that_looks_otherwise_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer_install, "check", lambda tarball: None)
    for tarball in (build(tmp_path, scripts=7), build(tmp_path, page="<html></html>")):
        with pytest.raises(ViewerRefused):
            viewer_install.install(tmp_path / "viewer", tarball)
    build(tmp_path, scripts=0)
    with pytest.raises(ViewerRefused, match="0 scripts"):
        viewer_install.install(tmp_path / "viewer", tmp_path / "ohif.tgz")
    assert [entry.name for entry in tmp_path.iterdir()] == ["ohif.tgz"]


def test_another_tarball_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "viewer"), "--tarball", str(build(tmp_path))]
    result = CliRunner().invoke(viewer_install.main, arguments)
    assert result.exit_code == 1 and "SHA-512 differs" in result.output
    assert not (tmp_path / "viewer").exists()


def test_only_a_former_viewer_is_replaced(installed: Path, tmp_path: Path) -> None:
    viewer_install.install(installed, tmp_path / "ohif.tgz")
    assert "is ready" not in CliRunner().invoke(viewer_install.main, [str(installed)]).output
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ViewerRefused, match="something else"):
        viewer_install.install(tmp_path / "mine", tmp_path / "ohif.tgz")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_paths_of_the_viewers_router_give_its_page(installed: Path, client: Client) -> None:
    page = (installed / "index.html").read_bytes()
    for path in ("/ohif/", "/ohif/viewer?StudyInstanceUIDs=1.2", "/ohif/..%2f..%2fetc/passwd", f"/ohif/{'x' * 300}"):
        response = client.get(path)
        assert (response.status_code, response.content) == (200, page)
        assert response.headers["content-type"].startswith("text/html")
        assert response.headers["cross-origin-opener-policy"] == "same-origin"
        assert response.headers["cross-origin-embedder-policy"] == "require-corp"
        assert response.headers["cache-control"] == "private, no-cache"
    assert client.get("/ohif").headers["location"] == client.get("/").headers["location"] == "/ohif/"


def test_scripts_are_served_compressed_and_cached(installed: Path, client: Client) -> None:
    path = "/ohif/0.bundle.0123456789abcde0.js"
    plain = client.get(path)
    packed = client.get(path, headers={"accept-encoding": "gzip, br"})
    assert plain.content == packed.content and "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.headers["content-type"].startswith("text/javascript")
    assert plain.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert plain.headers["etag"] != packed.headers["etag"]
    assert client.get(path, headers={"if-none-match": plain.headers["etag"]}).status_code == 304


def test_the_configuration_is_ours(installed: Path, client: Client) -> None:
    response = client.get("/ohif/app-config.js")
    assert response.text.startswith(viewer.APP_CONFIG)
    assert "routerBasename: '/ohif'" in response.text and "omitQuotationForMultipartRequest: true" in response.text
    assert client.get("/ohif/app-config.js", headers={"if-none-match": response.headers["etag"]}).status_code == 304


def test_without_a_viewer_the_page_says_how_to_get_it(client: Client, node: FakeNode, tmp_path: Path) -> None:
    node.settings.web.viewer_dir = tmp_path
    response = client.get("/ohif/")
    assert response.status_code == 503
    assert "python -m dicomweb.viewer_install" in response.text
    (tmp_path / "index.html").write_text("half unpacked")
    assert client.get("/ohif/").status_code == 503
    (tmp_path / STAMP).write_text("")
    assert client.get("/ohif/").status_code == 200


def test_a_person_without_session_is_told_how_to_log_in(anonymous: Client, installed: Path) -> None:
    response = anonymous.get("/ohif/", headers={"accept": "text/html,*/*;q=0.8"})
    assert response.status_code == 401
    assert "cairn login-link" in response.text
    assert anonymous.get("/ohif/app-config.js", headers={"accept": "*/*"}).json()["status"] == 401


def test_a_viewer_asks_whether_its_study_is_held(installed: Path, client: Client, node: FakeNode) -> None:
    config = client.get("/ohif/app-config.js").text
    assert "/ohif/held?study=" in config and "location.replace('/ohif/ended')" in config
    assert client.get(f"/ohif/held?study={STUDY}").status_code == 404
    node.page = SearchPage(({"00201208": {"vr": "IS", "Value": [62]}},), 0)
    answer = client.get(f"/ohif/held?study={STUDY}")
    assert (answer.status_code, answer.json()) == (200, {"instances": 62})
    assert answer.headers["cache-control"] == "no-store"
    assert node.recorded == []
    for none in ("", "*", "1.2.3\\1.2.4"):
        assert client.get("/ohif/held", params={"study": none}).status_code == 404
    page = client.get("/ohif/ended")
    assert "no longer available here" in page.text
    assert page.headers["cache-control"] == "no-store"


def test_only_who_may_retrieve_is_told_what_is_held(anonymous: Client, node: FakeNode) -> None:
    node.page = SearchPage(({},), 0)
    for role, status in (("auditor", 403), ("nobody", 401), ("clinician", 200)):
        anonymous.headers = {"authorization": f"Bearer {role}"}
        assert anonymous.get(f"/ohif/held?study={STUDY}").status_code == status
