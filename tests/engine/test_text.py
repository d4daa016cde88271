"""Text comes in whole characters and stops where it is told to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from longspan.engine.text import TextStream, overlap
from longspan.models import LoadedModel, encode


@given(text=st.text(max_size=40))
def test_any_text_comes_back_in_whole_characters(llama: LoadedModel, text: str) -> None:
    stream = TextStream(llama.tokenizer)
    text = text.replace("\ufffd", "").encode("utf-8", "ignore").decode()
    shown = "".join(stream.push(token) for token in encode(text, llama))
    assert "\ufffd" not in shown
    assert shown + stream.finish() == stream.text == text


def test_half_a_character_is_never_shown(llama: LoadedModel) -> None:
    stream = TextStream(llama.tokenizer)
    *most, _ = encode("ab€", llama)
    assert [stream.push(token) for token in most] == ["a", "b", "", ""]
    assert stream.finish() == ""


def test_broken_bytes_do_not_hold_the_stream_up(llama: LoadedModel) -> None:
    stream = TextStream(llama.tokenizer)
    lead = encode("€", llama)[0]
    shown = "".join(stream.push(token) for token in [lead] * 12 + encode("ok", llama))
    assert shown.endswith("ok")


@given(
    text=st.text(alphabet="abc", max_size=30),
    stops=st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3),
)
def test_the_first_stop_string_cuts(llama: LoadedModel, text: str, stops: list[str]) -> None:
    stream = TextStream(llama.tokenizer, stops)
    shown = ""
    for token in encode(text, llama):
        shown += stream.push(token)
        assert not any(stop in shown for stop in stops)
        if stream.stopped:
            break
    shown += stream.finish()
    # A shorter stop string may be complete before a longer one that began earlier.
    met = [n for n in range(len(text) + 1) if any(text[:n].endswith(stop) for stop in stops)]
    seen = text[: met[0]] if met else text
    cut = min((seen.index(stop) for stop in stops if stop in seen), default=len(seen))
    assert (shown, stream.stopped) == (seen[:cut], bool(met))


def test_overlap() -> None:
    assert [overlap("abab", stop) for stop in ("abc", "bab", "x", "ababab", "b")] == [2, 1, 0, 4, 0]
