"""Sources: what is opened, in which order, what is left out and why, and what is said when nothing can be read."""

from __future__ import annotations

import bz2
import gzip
import http.server
import io
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from longspan.corpus import Corpus
from longspan.corpus import corpus as module
from longspan.errors import LongspanError

PAGES: dict[str, tuple[str, bytes]] = {
    "/page": ("text/html; charset=utf-8", "<h1>Über</h1><p>Text".encode()),
    "/latin": ("text/plain; charset=iso-8859-1", "Über uns".encode("latin-1")),
    "/a.md": ("text/plain", b"# Head\n\nText."),
    "/a.txt.gz": ("application/gzip", gzip.compress(b"packed")),
    "/empty": ("text/plain", b""),
    "/image": ("image/png", b"\x89PNG\0\0"),
    "/large": ("text/plain", b"x" * 100_000),
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in ("/moved", "/loop"):
            self.send_response(302)
            self.send_header("Location", "/page" if path == "/moved" else "/loop")
            self.end_headers()
        elif path in PAGES:
            media_type, body = PAGES[path]
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Relative paths start in an empty folder, and no proxy stands before the local server."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("no_proxy", "*")
    return folder


def write(files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)


def names(opened: Corpus) -> list[str]:
    return [entry.name for entry in opened.entries]


def texts(opened: Corpus) -> list[str]:
    return [document.text for document in opened.documents()]


def refusal(*sources: str) -> str:
    """The message of the refusal, which is one sentence."""
    with pytest.raises(LongspanError) as caught:
        Corpus.open(sources)
    message = str(caught.value)
    assert message.endswith(".") and ". " not in message and "\n" not in message
    return message


# -- files and folders ------------------------------------------------------------------------------------------------


def test_files_in_the_order_given() -> None:
    write({"b.txt": "B", "a.md": "A"})
    opened = Corpus.open(["b.txt", Path("a.md")])
    assert (names(opened), texts(opened), len(opened), opened.size) == (["b.txt", "a.md"], ["B", "A"], 2, 2)
    assert opened.sources == ["b.txt", "a.md"]


def test_a_folder_with_what_is_below_it() -> None:
    write({"d/z.txt": "Z", "d/b/c.txt": "C", "d/a.txt": "A", "d/b/a.html": "<p>H"})
    hidden = ["d/.hidden", "d/.git/config", "d/node_modules/x.js", "d/__pycache__/x.txt", "d/b/.x/y.txt"]
    write(dict.fromkeys(hidden, "no"))
    opened = Corpus.open(["d"])
    assert names(opened) == ["d/a.txt", "d/z.txt", "d/b/a.html", "d/b/c.txt"]
    assert not opened.skipped
    assert texts(Corpus.open(["d/.hidden"])) == ["no"]  # what is named is read


def test_what_cannot_be_read_in_a_folder_is_told() -> None:
    write(
        {
            "d/a.txt": "A",
            "d/b.png": b"\x89PNG\0",
            "d/c.txt": "",
            "d/d.html": "<script>x</script>",
            "d/e.pdf": b"%PDF-1 x",
        }
    )
    write({"d/f.txt.gz": gzip.compress(b"text")[:-6], "d/g.bin": bytes(range(1, 32)) * 9})
    opened = Corpus.open(["d"])
    assert names(opened) == ["d/a.txt"]
    reasons = {skipped.name: skipped.reason for skipped in opened.skipped}
    assert list(reasons) == ["d/b.png", "d/c.txt", "d/d.html", "d/e.pdf", "d/f.txt.gz", "d/g.bin"]
    assert "binary file" in reasons["d/b.png"] and "binary file" in reasons["d/g.bin"]
    assert reasons["d/c.txt"] == "is empty: there is nothing to read"
    assert "no text" in reasons["d/d.html"]
    assert "damaged" in reasons["d/e.pdf"] and "damaged" in reasons["d/f.txt.gz"]


def test_all_that_is_opened_can_be_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of anything: whatever is not skipped loads again when nothing is kept."""
    monkeypatch.setattr(module, "KEPT_CHARACTERS", 0)
    for number in range(60):
        write({f"d/{number}.bin": os.urandom(40) if number % 2 else b"A text of bytes \xe9 and \x92."})
    opened = Corpus.open(["d"])
    assert len(list(opened.documents())) == len(opened) >= 30


def test_packed_files_in_folders() -> None:
    write(
        {
            "d/a.txt.gz": gzip.compress(b"Packed."),
            "d/b.html.bz2": bz2.compress(b"<p>Page"),
            "d/c.py.gz": gzip.compress(b"x = 1"),
        }
    )
    opened = Corpus.open(["d"])
    assert names(opened) == ["d/a.txt.gz", "d/b.html.bz2", "d/c.py.gz"]
    assert texts(opened) == ["Packed.", "Page\n", "x = 1"]
    assert [document.kind for document in opened.documents()] == ["text", "html", "code"]


def test_globs() -> None:
    write({"d/a.txt": "A", "d/b.txt": "B", "d/c.md": "C", "d/e/f.txt": "F"})
    assert names(Corpus.open(["d/*.txt"])) == ["d/a.txt", "d/b.txt"]
    assert names(Corpus.open(["d/**/*.txt"])) == ["d/a.txt", "d/b.txt", "d/e/f.txt"]
    assert names(Corpus.open([f"{Path.cwd()}/d/[bc].*"])) == [f"{Path.cwd()}/d/b.txt", f"{Path.cwd()}/d/c.md"]
    Path("x[1].txt").write_text("name with marks")
    assert texts(Corpus.open(["x[1].txt"])) == ["name with marks"]
    assert refusal("d/*.pdf") == "No file matches d/*.pdf: check the pattern."
    assert "there are no files" in refusal("d/e*")


def test_home() -> None:
    write({"a.txt": "A"})
    opened = Corpus.open(["~/a.txt"])
    assert texts(opened) == ["A"]
    assert opened.key == Corpus.open(["a.txt"]).key


def test_messages() -> None:
    assert refusal("no.txt") == "There is no file or folder no.txt: check the path."
    assert "nobody-here" in refusal("~nobody-here/x.txt")
    assert "A source is empty" in refusal(" ")
    assert len(refusal("What is the meaning of life " * 500)) < 250
    assert "no file or folder" in refusal("a\0b")
    Path("empty").mkdir()
    assert refusal("empty") == "Nothing to read in empty: there are no files."
    write({"d/a.png": b"\0", "d/b.png": b"\0"})
    assert "d/a.png was left out (is a binary file" in refusal("d") and refusal("d").endswith("and 1 more.")
    assert "d/a.png is a binary file" in refusal("d/a.png")


def test_files_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    write({"d/a.txt": "A", "d/b.txt": "B"})
    real = Path.open

    def refuse(path: Path, *args: str) -> object:
        if path.name == "b.txt":
            raise PermissionError(13, "Permission denied")
        return real(path, *args)

    monkeypatch.setattr(Path, "open", refuse)
    assert refusal("d/b.txt") == "d/b.txt cannot be read: Permission denied."
    assert [(one.name, one.reason) for one in Corpus.open(["d"]).skipped] == [
        ("d/b.txt", "cannot be read: Permission denied")
    ]


def test_folders_that_may_not_be_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    write({"d/a.txt": "A", "d/e/b.txt": "B"})
    real = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("e"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    opened = Corpus.open(["d"])
    assert names(opened) == ["d/a.txt"]
    assert [(one.name, one.reason) for one in opened.skipped] == [("d/e", "cannot be entered: Permission denied")]


def test_one_file_by_many_names_is_one_document() -> None:
    write({"d/a.txt": "A", "d/b.txt": "A"})
    Path("link.txt").symlink_to("d/a.txt")
    opened = Corpus.open(["d/a.txt", "d", "./d/a.txt", "link.txt", "d/*"])
    assert names(opened) == ["d/a.txt", "d/b.txt"]  # the same text in another file is another document
    assert len({entry.id for entry in opened.entries}) == 2


def test_links() -> None:
    write({"d/a.txt": "A"})
    Path("d/loop").symlink_to(".")
    Path("d/self").symlink_to("self")
    Path("d/broken").symlink_to("nowhere")
    assert names(Corpus.open(["d"])) == ["d/a.txt"]
    assert "d/self cannot be read" in refusal("d/self")
    assert "d/broken cannot be read: No such file" in refusal("d/broken")


def test_a_pipe() -> None:
    os.mkfifo("pipe")
    threading.Thread(target=lambda: Path("pipe").write_text("through"), daemon=True).start()
    opened = Corpus.open(["pipe"])
    assert texts(opened) == texts(opened) == ["through"]


def test_large_files_are_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 3_000_000)
    write({"a.txt": b"x" * 3_000_001})
    assert refusal("a.txt") == "a.txt is larger than 3 MB: split it into files."


# -- stdin and texts --------------------------------------------------------------------------------------------------


def test_stdin() -> None:
    opened = Corpus.open(["-"], stdin=io.BytesIO("Grüße".encode("utf-16")))
    assert (names(opened), texts(opened)) == (["stdin"], ["Grüße"])
    assert opened.key == Corpus.open(["-"], stdin=io.BytesIO("Grüße".encode("utf-16"))).key
    assert opened.key != Corpus.open(["-"], stdin=io.BytesIO(b"other")).key
    assert refusal("-") == "stdin is empty: there is nothing to read."


def test_texts_in_memory() -> None:
    opened = Corpus.from_texts({"a": "A\ud83d", "b": ""})
    assert texts(opened) == ["A\ud83d", ""]
    assert opened.key == Corpus.from_texts({"b": "", "a": "A\ud83d"}).key != Corpus.from_texts({"a": "A"}).key
    with pytest.raises(LongspanError, match="there is nothing to read"):
        Corpus.from_texts({"a": " \n"})
    with pytest.raises(LongspanError):
        Corpus.from_texts({})


# -- URLs -------------------------------------------------------------------------------------------------------------


def test_urls(server: str) -> None:
    opened = Corpus.open(
        [f"{server}/page", f"{server}/moved", f"{server}/a.md?raw=1", f"{server}/latin", f"{server}/a.txt.gz"]
    )
    assert texts(opened) == ["# Über\n\nText\n"] * 2 + ["# Head\n\nText.", "Über uns", "packed"]
    assert [document.kind for document in opened.documents()] == ["html", "html", "markdown", "text", "text"]
    assert names(opened)[0] == f"{server}/page"


def test_urls_that_cannot_be_read(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(f"{server}/none") == f"{server}/none answered 404 Not Found: check the address."
    assert "is empty" in refusal(f"{server}/empty")
    assert "is a binary file" in refusal(f"{server}/image")
    assert "cannot be fetched" in refusal(f"{server}/loop")
    monkeypatch.setattr(module, "URL_BYTES", 1000)
    assert "is larger than" in refusal(f"{server}/large")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert "cannot be fetched" in refusal(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "url", ["http://", "http://[::1", "http://127.0.0.1:99999/", "http://a b/", "https://\udc80/", "http://\0/"]
)
def test_odd_addresses(url: str) -> None:
    assert refusal(url).startswith(url)


# -- loading ----------------------------------------------------------------------------------------------------------


def test_ids_are_stable_and_hold_content_and_name() -> None:
    write({"a.txt": "A", "b.txt": "A"})
    first = [entry.id for entry in Corpus.open(["a.txt", "b.txt"]).entries]
    assert [entry.id for entry in Corpus.open(["a.txt", "b.txt"]).entries] == first
    write({"a.txt": "B"})
    second = [entry.id for entry in Corpus.open(["a.txt", "b.txt"]).entries]
    assert second[0] not in first and second[1] == first[1]


def test_only_what_was_used_last_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_CHARACTERS", 250)
    for name in "abcde":
        write({f"{name}.txt": name * 100})
    opened = Corpus.open([f"{name}.txt" for name in "abcde"])
    assert len(opened._kept) == 2
    assert texts(opened) == [name * 100 for name in "abcde"]
    assert len(opened._kept) == 2 and opened._kept_characters == 200
    first = opened.entries[0].id
    assert opened.document(first) is opened.document(first)


def test_a_file_that_changes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_CHARACTERS", 0)
    write({"a.txt": "A", "b.txt": "B"})
    opened = Corpus.open(["a.txt", "b.txt"])
    write({"a.txt": "changed"})
    with pytest.raises(LongspanError, match=r"^a.txt was changed while it was read: ask again.$"):
        opened.document(opened.entries[0].id)
    Path("a.txt").unlink()
    with pytest.raises(LongspanError, match=r"^a.txt cannot be read: No such file"):
        opened.document(opened.entries[0].id)


def test_the_key_of_sources_does_not_depend_on_spelling() -> None:
    write({"d/a.txt": "A", "d/b.txt": "B"})
    assert Corpus.open(["d/a.txt", "d/b.txt"]).key == Corpus.open([f"{Path.cwd()}/d/b.txt", "./d/a.txt"]).key
    assert Corpus.open(["d/a.txt"]).key != Corpus.open(["d"]).key


def test_unicode_names() -> None:
    strange = os.fsdecode(b"\xff.txt")
    for name in ("ü 漢.txt", strange):
        Path(name).write_text("A")
    opened = Corpus.open(["."])
    assert len(opened) == 2 and opened.key
    assert texts(opened) == ["A", "A"]


def test_what_was_released_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Alpha.")
    corpus = Corpus.open([tmp_path / "a.txt"])
    [before] = corpus.documents()
    corpus.release()
    [after] = corpus.documents()
    assert after is not before
    assert (after.id, after.text) == (before.id, before.text)
