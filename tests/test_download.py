"""Downloads over a real (local) server that cuts, lies and changes its files, and archives that try to get out of
their folder."""

import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from layouts import build, plan
from refusal import message

import speciarl.data.fetch
from speciarl.core.files import file_digest
from speciarl.data.benchmarks import DATASETS, RemoteFile
from speciarl.data.fetch import CHUNK, MAX_GROWTH, download, fetch, unpack, verify_file
from speciarl.data.splits import read_split


class Server(ThreadingHTTPServer):
    "Serves `files` by name; misbehaves as its attributes say."

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, int]] = []  # name and first byte of every request
        self.cuts: list[int] = []  # answer no. i ends after so many bytes
        self.codes: list[int] = []  # answer no. i is this error, if not 0
        self.ranges, self.tags, self.length = True, True, True

    def handle_error(self, request, address):
        "A client that hangs up is part of some tests."

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, name = self.server, self.path.strip("/")
        content, number = server.files.get(name), len(server.asked)
        tag = f'"{hashlib.md5(content or b"").hexdigest()}"'
        start = (
            int(self.headers["Range"][6:-1])
            if "Range" in self.headers and server.ranges and self.headers.get("If-Range", tag) == tag
            else 0
        )
        server.asked.append((name, start))
        code = server.codes[number] if number < len(server.codes) else 0
        if content is None or code:
            return self.send_error(code or 404)
        if start >= len(content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.length:
            self.send_header("Content-Length", str(len(content) - start))
        if server.tags:
            self.send_header("ETag", tag)
        self.end_headers()
        end = server.cuts[number] if number < len(server.cuts) else len(content)
        self.wfile.write(content[start : max(start, end)])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


CONTENT = bytes(range(256)) * 4000  # about a megabyte


@pytest.fixture
def remote(server):
    server.files["a.bin"] = CONTENT
    return RemoteFile(name="a.bin", url=f"{server.url}/a.bin")


def summed(remote: RemoteFile, content: bytes = CONTENT) -> RemoteFile:
    return remote.model_copy(
        update={"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "source": "a citable source"}
    )


# --- receiving --------------------------------------------------------------------------------------------------------


def test_a_cut_connection_is_resumed_where_it_broke(server, remote, tmp_path):
    server.cuts = [300_000, 300_000, 700_000]  # the second answer brings nothing
    assert fetch(remote, tmp_path, wait=0).read_bytes() == CONTENT
    assert server.asked == [("a.bin", 0), ("a.bin", 300_000), ("a.bin", 300_000), ("a.bin", 700_000)]


def test_a_partial_file_of_an_earlier_run_is_resumed(server, remote, tmp_path):
    server.cuts = [400_000] * 2
    assert message(fetch, remote, tmp_path, wait=0, attempts=2).endswith(
        "/a.bin: no connection (the connection was closed early); run the command again (it goes on where it stopped)"
    )
    assert fetch(remote, tmp_path, wait=0).read_bytes() == CONTENT
    assert server.asked[-1] == ("a.bin", 400_000)


def test_a_changed_file_is_not_glued_to_the_old_beginning(server, remote, tmp_path):
    server.cuts = [400_000]
    message(fetch, remote, tmp_path, wait=0, attempts=1)
    server.files["a.bin"] = new = CONTENT[::-1]
    assert fetch(remote, tmp_path, wait=0).read_bytes() == new


def test_without_a_tag_or_a_sum_it_starts_afresh(server, remote, tmp_path):
    server.tags, server.cuts = False, [400_000]
    assert fetch(remote, tmp_path, wait=0).read_bytes() == CONTENT
    assert server.asked == [("a.bin", 0), ("a.bin", 0)]


def test_without_a_tag_a_published_sum_allows_resuming(server, remote, tmp_path):
    server.tags, server.cuts = False, [400_000]
    assert fetch(summed(remote), tmp_path, wait=0).read_bytes() == CONTENT
    assert server.asked == [("a.bin", 0), ("a.bin", 400_000)]


def test_a_server_without_ranges(server, remote, tmp_path):
    server.ranges, server.cuts = False, [400_000]
    assert fetch(remote, tmp_path, wait=0).read_bytes() == CONTENT
    assert [start for _, start in server.asked] == [0, 0]


def test_a_server_that_does_not_say_the_length(server, remote, tmp_path):
    server.length = False
    assert fetch(remote, tmp_path, wait=0).read_bytes() == CONTENT


def test_all_has_arrived_before(server, remote, tmp_path):
    fetch(remote, tmp_path, wait=0)
    assert fetch(remote, tmp_path, wait=0).read_bytes() == CONTENT
    assert server.asked[-1] == ("a.bin", len(CONTENT))


def test_a_part_that_is_too_long_starts_afresh(server, remote, tmp_path):
    fetch(remote, tmp_path, wait=0)
    with open(tmp_path / "a.bin.part", "ab") as file:
        file.write(b"more")
    assert fetch(remote, tmp_path, wait=0).read_bytes() == CONTENT


def test_errors_of_the_server_are_tried_again_and_dead_links_are_not(server, remote, tmp_path):
    server.codes = [503, 500]
    assert fetch(remote, tmp_path, wait=0).read_bytes() == CONTENT
    gone = remote.model_copy(update={"url": f"{server.url}/gone.bin"})
    before = len(server.asked)
    assert (
        message(fetch, gone, tmp_path / "x", wait=0)
        == f"{server.url}/gone.bin: HTTP 404 (Not Found); if the link is dead, put a.bin into {tmp_path / 'x'} by "
        "hand and run the command again"
    )
    assert len(server.asked) == before + 1


def test_five_attempts_without_a_byte_are_enough(server, remote, tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    server.codes = [503] * 9
    assert message(fetch, remote, tmp_path).startswith(f"{server.url}/a.bin: HTTP 503")
    assert len(server.asked) == 5 and waited == [2, 4, 8, 16]


def test_nobody_listens(server, remote, tmp_path):
    server.shutdown()
    server.server_close()
    assert "/a.bin: no connection (" in message(fetch, remote, tmp_path, wait=0, attempts=2)


def test_another_size_than_the_published_is_refused_before_it_arrives(server, remote, tmp_path):
    wrong = remote.model_copy(update={"bytes": 10, "md5": "0" * 32, "source": "a citable source"})
    assert (
        message(fetch, wrong, tmp_path, wait=0)
        == f"{remote.url}: the server sends 1,024,000 bytes, published are 10 (a citable source); the file has "
        "changed, so do not use it"
    )
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_what_arrived(remote, tmp_path):
    (tmp_path / "a.bin.part").symlink_to("/dev/full")  # every write to it finds no space
    assert (
        message(fetch, remote, tmp_path, wait=0)
        == f"{tmp_path}: no space left for a.bin; make room and run the command again (it goes on where it stopped)"
    )


def test_a_place_where_nothing_may_be_written(remote, tmp_path, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("speciarl.data.fetch._receive", forbidden)
    assert (
        message(fetch, remote, tmp_path / "new")
        == f"{tmp_path / 'new'}: cannot be written (Permission denied); choose a folder you may write to"
    )


# --- sums -------------------------------------------------------------------------------------------------------------


def test_published_sums(remote, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENT)
    good = summed(remote)
    assert verify_file(good, path) == {
        "url": remote.url,
        "bytes": len(CONTENT),
        "sha256": file_digest(path),
        "compared_with": "a citable source",
    }
    md5 = good.model_copy(update={"sha256": "", "md5": file_digest(path, "md5")})
    assert verify_file(md5, path)["sha256"] == good.sha256
    path.write_bytes(CONTENT[:-1] + b"?")
    assert (
        message(verify_file, good, path)
        == f"{path}: sha256 {file_digest(path)}, published is {good.sha256} (a citable source); remove it and run "
        "the command again"
    )
    assert message(verify_file, md5, path).startswith(f"{path}: md5 {file_digest(path, 'md5')}, published is {md5.md5}")
    path.write_bytes(CONTENT[:-1])
    assert (
        message(verify_file, good, path)
        == f"{path}: 1,023,999 bytes, published are 1,024,000 (a citable source); remove it and run the command again"
    )


def test_a_recorded_sum_is_compared_where_none_is_published(remote, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENT)
    record = verify_file(remote, path)
    assert record["compared_with"] == "" and verify_file(remote, path, record) == record
    path.write_bytes(b"other")
    assert message(verify_file, remote, path, record) == (
        f"{path}: sha256 {file_digest(path)}, at the first download it was {record['sha256']} (downloads.json); "
        "the published file has changed: do not mix the two, remove it and run the command again"
    )


# --- unpacking --------------------------------------------------------------------------------------------------------


def tar_of(path, *members: tuple[str, dict, bytes], mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, attributes, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
    return path


def zip_of(path, *members: tuple[str, int, bytes], compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, mode, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = compression
            archive.writestr(info, content)
    return path


def refused(archive, tmp_path) -> str:
    "The message of `unpack`, having checked that nothing was written anywhere."
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    before = sorted(p.name for p in tmp_path.rglob("*"))
    text = message(unpack, archive, folder)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before and (folder / "mine.txt").read_text() == "mine"
    return text


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/tmp/speciarl_out.txt", "..", "a\\..\\..\\out.txt"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_no_entry_leaves_the_folder(name, kind, tmp_path):
    path = tmp_path / f"x.{kind}"
    archive = (
        tar_of(path, ("fine.txt", {}, b"1"), (name, {}, b"2"))
        if kind == "tar"
        else zip_of(path, ("fine.txt", 0, b"1"), (name, 0, b"2"))
    )
    assert (
        refused(archive, tmp_path) == f"{archive}: the entry {name!r} leads out of the folder; do not use this archive"
    )
    assert not os.path.exists("/tmp/speciarl_out.txt")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_no_links_and_no_devices(kind, tmp_path):
    archive = tar_of(tmp_path / "x.tar", ("fine.txt", {}, b"1"), ("x", {"type": kind, "linkname": "fine.txt"}, b""))
    assert refused(archive, tmp_path) == f"{archive}: the entry 'x' is a link or a device; do not use this archive"


def test_no_links_in_a_zip(tmp_path):
    archive = zip_of(tmp_path / "x.zip", ("x", 0o120777, b"/etc/passwd"))
    assert refused(archive, tmp_path) == f"{archive}: the entry 'x' is a link or a device; do not use this archive"


def test_bombs(tmp_path):
    zeros = bytes(40 * CHUNK)
    for i, archive in enumerate(
        [
            tar_of(tmp_path / "x.tar.gz", ("zeros", {}, zeros), mode="w:gz"),
            zip_of(tmp_path / "x.zip", ("zeros", 0, zeros)),
        ]
    ):
        (tmp_path / str(i)).mkdir()
        assert (
            refused(archive, tmp_path / str(i))
            == f"{archive}: it unpacks to more than {MAX_GROWTH} times its size; do not use this archive"
        )


def test_a_bomb_of_many_small_files(tmp_path):
    archive = tar_of(tmp_path / "x.tar.gz", *[(f"{i}", {}, bytes(CHUNK // 2)) for i in range(60)], mode="w:gz")
    assert "it unpacks to more than 20 times its size" in refused(archive, tmp_path)


def test_a_bomb_in_the_headers(tmp_path):
    "An extended header of 64 MiB is no entry, so no declared size shows it; tarfile would read it into memory."
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("fine.txt")
        info.pax_headers = {"comment": "0" * 64 * CHUNK}
        tar.addfile(info)
    assert path.stat().st_size < CHUNK
    assert (
        refused(path, tmp_path)
        == f"{path}: it unpacks to more than {MAX_GROWTH} times its size; do not use this archive"
    )


def test_damaged_archives(tmp_path):
    whole = tar_of(tmp_path / "whole.tar.gz", ("a", {}, os.urandom(3 * CHUNK)), mode="w:gz").read_bytes()
    zipped = zip_of(tmp_path / "whole.zip", ("a", 0, os.urandom(CHUNK))).read_bytes()
    broken = bytearray(zipped)
    broken[len(broken) // 2] ^= 1
    for i, content in enumerate(
        [
            whole[: len(whole) // 2],
            b"<html>no archive</html>" * 100,
            b"",
            bytes(broken),
            whole[:1000] + b"\0" * 5000 + whole[6000:],
        ]
    ):
        (tmp_path / str(i)).mkdir()
        archive = tmp_path / f"broken{i}"
        archive.write_bytes(content)
        assert refused(archive, tmp_path / str(i)).startswith(f"{archive}: damaged, or no archive (")


def test_good_archives(tmp_path):
    content = os.urandom(1000)
    tar = tar_of(
        tmp_path / "x.tgz",
        ("d", {"type": tarfile.DIRTYPE}, b""),
        ("./d/a.jpg", {"mode": 0o4777, "uid": 4711}, content),
        mode="w:gz",
    )
    zipped = zip_of(tmp_path / "x.zip", ("d/", 0o40755, b""), ("d/b.jpg", 0o100644, content), ("e.txt", 0, b"e"))
    assert unpack(tar, tmp_path / "to") == ["d"]
    assert unpack(zipped, tmp_path / "to") == ["d", "e.txt"]  # goes into the folder that is there
    assert unpack(tar, tmp_path / "to") == ["d"]  # once more replaces
    assert sorted(p.relative_to(tmp_path / "to").as_posix() for p in (tmp_path / "to").rglob("*")) == [
        "d",
        "d/a.jpg",
        "d/b.jpg",
        "e.txt",
    ]
    assert (tmp_path / "to" / "d" / "a.jpg").read_bytes() == content
    assert not (tmp_path / "to" / "d" / "a.jpg").stat().st_mode & 0o4000


def test_no_room_to_unpack(tmp_path, monkeypatch):
    def full(self, member, path, **kwargs):
        (path / "half").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = tar_of(tmp_path / "x.tar", ("a", {}, b"1"))
    monkeypatch.setattr(tarfile.TarFile, "extract", full)
    assert (
        refused(archive, tmp_path)
        == f"{tmp_path / 'in' / 'here'}: cannot unpack x.tar (No space left on device); make room or choose another "
        "folder"
    )


# --- data sets --------------------------------------------------------------------------------------------------------


def archives(name, folder, tmp_path) -> dict[str, bytes]:
    "The files of a data set as its official site has them, packed from a folder in its layout."
    packed = {}
    tops = {
        "images.tar.gz": ["images"],
        "annotations.tar.gz": ["annotations"],
        "102flowers.tgz": ["jpg"],
        "images.tar": ["Images"],
        "lists.tar": ["train_list.mat", "test_list.mat"],
        "cars_train.tgz": ["cars_train"],
        "cars_test.tgz": ["cars_test"],
        "car_devkit.tgz": ["devkit"],
    }
    for file in DATASETS[name].files:
        if file.name.endswith(".mat"):
            packed[file.name] = (folder / file.name).read_bytes()
            continue
        path = tmp_path / file.name
        with tarfile.open(path, "w") as tar:  # the suffix does not matter, as in the pets' archives
            for top in tops.get(file.name) or sorted(p.name for p in folder.iterdir()):
                tar.add(folder / top, top)
        packed[file.name] = path.read_bytes()
    return packed


@pytest.fixture
def published(monkeypatch):
    "A function that makes `files` the published ones of a data set: sizes and sums as stated there, where any are."

    def publish(name, files):
        def facts(file):
            update = {"bytes": len(files[file.name]) if file.bytes else None} | {
                k: getattr(hashlib, k)(files[file.name]).hexdigest() for k in ("sha256", "md5") if getattr(file, k)
            }
            return file.model_copy(update=update)

        info = DATASETS[name]
        monkeypatch.setitem(DATASETS, name, info.model_copy(update={"files": [facts(f) for f in info.files]}))

    return publish


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_set_is_fetched_unpacked_and_read(name, server, published, tmp_path):
    images = plan(name)
    (tmp_path / "packed").mkdir()
    server.files = archives(name, build(name, tmp_path / "source", images), tmp_path / "packed")
    published(name, server.files)
    lines = []
    folder = download(name, tmp_path / "data", mirror=server.url, say=lines.append)
    assert folder == tmp_path / "data" / name
    assert [s.label for s in read_split(name, folder)] == [label for split, label, _ in images if split == "test"]
    records = json.loads((folder / "downloads.json").read_text())
    assert {f.name: records[f.name]["compared_with"] for f in DATASETS[name].files} == {
        f.name: f.source for f in DATASETS[name].files
    }
    assert all(records[f]["sha256"] == hashlib.sha256(server.files[f]).hexdigest() for f in records)
    assert not [p for p in folder.iterdir() if ".part" in p.name or p.name.startswith(".unpacking")]
    asked = len(server.asked)
    download(name, tmp_path / "data", mirror=server.url, say=lines.append)
    assert len(server.asked) == asked


@pytest.fixture
def aircraft(server, published, tmp_path):
    (tmp_path / "packed").mkdir()
    folder = build("fgvc_aircraft", tmp_path / "source", plan("fgvc_aircraft", {"train": 2, "val": 2, "test": 2}))
    server.files = archives("fgvc_aircraft", folder, tmp_path / "packed")
    return server.files


@pytest.fixture
def birds(server, published, tmp_path):
    (tmp_path / "packed").mkdir()
    folder = build("cub200", tmp_path / "source", plan("cub200", {"train": 2, "test": 2}))
    server.files = archives("cub200", folder, tmp_path / "packed")
    published("cub200", server.files)
    return server.files


def quiet(line):
    pass


def test_a_wrong_file_is_removed_and_not_unpacked(birds, server, tmp_path):
    good = birds["CUB_200_2011.tgz"]
    birds["CUB_200_2011.tgz"] = good[:-1] + b"?"
    text = message(download, "cub200", tmp_path, mirror=server.url, say=quiet, wait=0)
    assert f", published is {hashlib.sha256(good).hexdigest()} (tensorflow-datasets 4.9.10" in text and text.endswith(
        "; it was removed; run the command again, or look for another source"
    )
    assert [p.name for p in (tmp_path / "cub200").iterdir()] == [".lock"]
    birds["CUB_200_2011.tgz"] = good
    assert len(read_split("cub200", download("cub200", tmp_path, mirror=server.url, say=quiet))) == 2


def test_a_later_download_is_compared_with_the_first(aircraft, server, tmp_path):
    folder = download("fgvc_aircraft", tmp_path, mirror=server.url, say=quiet)
    first = json.loads((folder / "downloads.json").read_text())
    shutil.rmtree(folder / "fgvc-aircraft-2013b")
    (folder / "fgvc-aircraft-2013b.tar.gz").unlink()
    good = aircraft["fgvc-aircraft-2013b.tar.gz"]
    aircraft["fgvc-aircraft-2013b.tar.gz"] = good + b"\0"
    assert f"at the first download it was {hashlib.sha256(good).hexdigest()} (downloads.json)" in message(
        download, "fgvc_aircraft", tmp_path, mirror=server.url, say=quiet
    )
    assert not (folder / "fgvc-aircraft-2013b").exists()
    aircraft["fgvc-aircraft-2013b.tar.gz"] = good
    download("fgvc_aircraft", tmp_path, mirror=server.url, say=quiet)
    assert json.loads((folder / "downloads.json").read_text()) == first


def test_a_damaged_record_is_not_overwritten(aircraft, server, tmp_path):
    (tmp_path / "fgvc_aircraft").mkdir()
    (tmp_path / "fgvc_aircraft" / "downloads.json").write_text("{")
    assert (
        message(download, "fgvc_aircraft", tmp_path, mirror=server.url, say=quiet)
        == f"{tmp_path / 'fgvc_aircraft' / 'downloads.json'}: damaged; restore it, or remove it if the sums of "
        "earlier downloads do not matter"
    )
    assert (tmp_path / "fgvc_aircraft" / "downloads.json").read_text() == "{"


def test_an_archive_put_there_by_hand_is_compared_and_unpacked(birds, server, tmp_path):
    (tmp_path / "cub200").mkdir()
    (tmp_path / "cub200" / "CUB_200_2011.tgz").write_bytes(birds["CUB_200_2011.tgz"])
    lines = []
    assert len(read_split("cub200", download("cub200", tmp_path, say=lines.append))) == 2
    assert lines[0] == "CUB_200_2011.tgz: is there" and not server.asked


def test_a_set_without_a_site_says_what_to_put_where(server, published, tmp_path):
    folder = tmp_path / "stanford_cars"
    assert message(download, "stanford_cars", tmp_path, say=quiet) == (
        "stanford_cars cannot be downloaded: the original site is gone (github.com/pytorch/vision/issues/7545 names "
        "copies); put cars_train.tgz (979,269,282 bytes), "
        "cars_test.tgz (977,350,468 bytes), car_devkit.tgz (330,960 bytes), cars_test_annos_withlabels.mat (185,758 "
        "bytes) into "
        f"{folder} and run the command again, or put the unpacked folders there"
    )
    (tmp_path / "packed").mkdir()
    files = archives("stanford_cars", build("stanford_cars", tmp_path / "source"), tmp_path / "packed")
    published("stanford_cars", files)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    assert len(read_split("stanford_cars", download("stanford_cars", tmp_path, say=quiet))) == 196


def test_unpacked_folders_put_there_by_hand_need_no_archive(tmp_path):
    build("stanford_cars", tmp_path / "stanford_cars")
    lines = []
    download("stanford_cars", tmp_path, say=lines.append)
    assert lines[0] == "train: 196 images, officially 8,144"


def test_what_was_lost_is_unpacked_again(birds, server, tmp_path):
    folder = download("cub200", tmp_path, mirror=server.url, say=quiet)
    (folder / "CUB_200_2011" / "images.txt").unlink()
    download("cub200", tmp_path, mirror=server.url, say=quiet)
    assert len(read_split("cub200", folder)) == 2 and len(server.asked) == 1


def test_the_second_of_two_processes_is_refused(birds, server, tmp_path):
    (tmp_path / "cub200").mkdir()
    with open(tmp_path / "cub200" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert (
            message(download, "cub200", tmp_path, mirror=server.url, say=quiet)
            == f"{tmp_path / 'cub200'}: another process is downloading into it; wait for it to finish"
        )
    download("cub200", tmp_path, mirror=server.url, say=quiet)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert (
        message(download, "cub200", tmp_path / "file", say=quiet)
        == f"{tmp_path / 'file' / 'cub200'}: cannot be written (Not a directory); choose a folder you may write to"
    )


def test_unknown_set(tmp_path):
    assert message(download, "birds", tmp_path).startswith("no data set 'birds'; use one of cub200, ")
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_when_unpacking_fails(birds, server, published, tmp_path):
    archive = tar_of(tmp_path / "evil.tgz", ("CUB_200_2011/images.txt", {}, b"1 a"), ("../x", {}, b""))
    birds["CUB_200_2011.tgz"] = archive.read_bytes()
    published("cub200", birds)
    assert "leads out of the folder" in message(download, "cub200", tmp_path, mirror=server.url, say=quiet)
    assert sorted(p.name for p in (tmp_path / "cub200").iterdir()) == [".lock", "CUB_200_2011.tgz", "downloads.json"]


def test_no_sum_is_invented():
    assert [f.name for info in DATASETS.values() for f in info.files if not f.source] == ["fgvc-aircraft-2013b.tar.gz"]
    assert speciarl.data.fetch.verify_file.__doc__
