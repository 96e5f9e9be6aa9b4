"""Session ids in paths."""

import re
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlb._core import _testing_path as core

OLD = b"lit3py55t21z5v55vlm25s55"


@pytest.mark.parametrize(("reference", "path"), [
    (b"/a/b", b"/a/b"),
    (b"/a;x=1?b;y=2", b"/a;x=1"),
    (b"/a#b;y=2", b"/a"),
    (b"/a#b?c", b"/a"),
    (b"/a?b#c", b"/a"),
    (b"b/c", b"b/c"),
    (b"", b""),
    (b"?a", b""),
    (b"#a", b""),
    (b"http://www.example.com/a;x=1", b"/a;x=1"),
    (b"HTTPS://www.example.com:8443/a?b", b"/a"),
    (b"http://www.example.com", b""),
    (b"http://www.example.com?a=/b", b""),
    (b"http://u;x=1:p@www.example.com/a", b"/a"),
    (b"http://[2001:db8::1]:80/a", b"/a"),
    (b"//www.example.com/a", b"/a"),
    (b"//www.example.com", b""),
    (b"///a", b"/a"),
    (b"mailto:a;jsessionid=1", b""),
    (b"a+b-c.1:x", b""),
    (b"1a:x", b"1a:x"),
    (b":x", b":x"),
    (b"/a:b", b"/a:b"),
    (b"a/b:c", b"a/b:c"),
    (b"http:", b""),
    (b"\xe4:/b", b"\xe4:/b"),
])  # fmt: skip
def test_the_path_of_a_reference(reference: bytes, path: bytes) -> None:
    assert core.of_reference(reference) == path


@given(st.from_regex(
    r"(https?://[a-z.]{1,9}(:[0-9]{2})?)?(/[a-z;=]{0,5}){0,3}(\?[a-z/?]{0,5})?(#[a-z?]{0,5})?",
    fullmatch=True,
).filter(lambda text: not text.startswith("//")))  # fmt: skip
def test_paths_against_urlsplit(text: str) -> None:
    assert core.of_reference(text.encode()).decode() == urlsplit(text).path


@pytest.mark.parametrize(("path", "values"), [
    (b"/a;jsessionid=1", [b"1"]),
    (b";jsessionid=1", [b"1"]),
    (b"/a;jsessionid=1;b=2", [b"1"]),
    (b"/a;b=2;jsessionid=1", [b"1"]),
    (b"/a;jsessionid=1/b/c", [b"1"]),
    (b"/a;jsessionid=/b", [b""]),
    (b"/a;jsessionid=", [b""]),
    (b"/a;jsessionid=1=2", [b"1=2"]),
    (b"/a;jsessionid=1/b;jsessionid=2;jsessionid=3", [b"1", b"2", b"3"]),
    (b"/a;jsessionid=1,2", [b"1,2"]),
    (b"/a;;jsessionid=1", [b"1"]),
    (b"/a;jsessionid;jsessionid=1", [b"1"]),
    (b"/a;xjsessionid=1", []),
    (b"/a;jsessionidx=1", []),
    (b"/a;jsessionid", []),
    (b"/a;JSESSIONID=1", []),
    (b"/a;jsessionid =1", []),
    (b"/a; jsessionid=1", []),
    (b"/ajsessionid=1", []),
    (b"/jsessionid=1", []),
    (b"/a%3Bjsessionid=1", []),
    (b"/a;%6Asessionid=1", []),
    (b"/a;jsessionid%3D1", []),
    (b"/a;jsessionid=%31", [b"%31"]),
    (b"/a;jsessionid=\xe4\x00", [b"\xe4\x00"]),
    (b"/a;", []),
    (b"", []),
])  # fmt: skip
def test_parameters(path: bytes, values: list[bytes]) -> None:
    assert core.parameters(path, b"jsessionid") == values


@given(st.lists(st.sampled_from([b"/", b";", b"=", b"id", b"i", b"%3B", b"1", b"\xff"])).map(
    b"".join))  # fmt: skip
def test_parameters_against_a_pattern(path: bytes) -> None:
    assert core.parameters(path, b"id") == re.findall(rb";id=([^;/]*)", path)


@pytest.mark.parametrize(("path", "found"), [
    (b"/(S(abc))/x", b"abc"),
    (b"/(s(abc))/x", b"abc"),
    (b"/(S(abc))", b"abc"),
    (b"(S(abc))/x", b"abc"),
    (b"/a/b/(S(abc))/x", b"abc"),
    (b"/(A(1)S(abc)F(2))/x", b"abc"),
    (b"/(F(2)S(abc)A(1))/x", b"abc"),
    (b"/(X(1)S(abc))/x", b"abc"),
    (b"/(A()S(abc))/x", b"abc"),
    (b"/(S(abc)S(def))/x", b"abc"),
    (b"/(S()S(def))/x", b"def"),
    (b"/(A(1))/(S(abc))/x", b"abc"),
    (b"/(S(abc))/(S(def))/x", b"abc"),
    (b"/(S(ABC.def-1))/x", b"ABC.def-1"),
    (b"/(S(%28))/x", b"%28"),
    (b"/(S(\xe4))/x", b"\xe4"),
    (b"/(" + OLD + b")/x", OLD),
    (b"/(" + OLD + b")", OLD),
    (b"/(S(" + OLD + b"))/x", OLD),
    (b"/(S(" + b"a" * 256 + b"))/", b"a" * 256),
    (b"/(S(" + b"a" * 257 + b"))/", None),
    (b"/(S(" + b"a" * 257 + b"))/(S(b))", b"b"),
    (b"/(" + OLD[1:] + b")/x", None),
    (b"/(" + OLD + b"5)/x", None),
    (b"/(" + OLD.upper() + b")/x", None),
    (b"/(" + OLD[1:] + b"6)/x", None),
    (b"/(S())/x", None),
    (b"/(A(1))/x", None),
    (b"/x(S(abc))/x", None),
    (b"/(S(abc))x/x", None),
    (b"/(S(abc)/x", None),
    (b"/(S(abc)))/x", None),
    (b"/((S(abc)))/x", None),
    (b"/(S(a(b)c))/x", None),
    (b"/(S(ab/c))/x", None),
    (b"/(SS(abc))/x", None),
    (b"/(1(a)S(abc))/x", None),
    (b"/(S(abc)1)/x", None),
    (b"/(S(abc)A)/x", None),
    (b"/S(abc)/x", None),
    (b"/%28S(abc))/x", None),
    (b"/(S(abc)%29/x", None),
    (b"/(/)/()/(()/", None),
    (b"(", None),
    (b"/(", None),
    (b"/()", None),
    (b"/(S(", None),
    (b"", None),
])  # fmt: skip
def test_segments(path: bytes, found: bytes | None) -> None:
    assert core.asp_id(path) == found


def segments_of(path: bytes) -> bytes | None:
    for segment in path.split(b"/"):
        if re.fullmatch(rb"\([a-z0-5]{24}\)", segment):
            return segment[1:-1]
        if re.fullmatch(rb"\(([A-Za-z]\([^()]*\))+\)", segment):
            ids = [one for one in re.findall(rb"[Ss]\(([^()]*)\)", segment) if one]
            if ids:
                return ids[0]
    return None


@given(st.lists(st.sampled_from(
    [b"/", b"(", b")", b"S(", b"s(", b"A(", b"1", b"ab", OLD, b"(S(", b"))/", b"\xff"]
)).map(b"".join))  # fmt: skip
def test_segments_against_patterns(path: bytes) -> None:
    assert core.asp_id(path) == segments_of(path)
