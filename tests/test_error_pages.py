"""The files of error pages, as the control process reads them at a start and a reload."""

from pathlib import Path

import pytest

from fastlb.check import check_text
from fastlb.config import Config
from fastlb.error_pages import PAGE_BYTES_MAX, Page, load_error_pages
from fastlb.errors import StartError


def config(folder: Path, **pages: str) -> Config:
    """Its pages are looked for beside the configuration; they need not be right any more."""
    names = {f"_{number}": number for number in (502, 503)}
    written = ", ".join(f'"{names[key]}" = "{file}"' for key, file in pages.items())
    text = f"""
        [virtual_servers.shop]
        listen = ["127.0.0.1:8080"]
        pool = "web"
        error_pages = {{ {written} }}
        [pools.web]
        nodes = ["127.0.0.1:81"]
        """
    for file in pages.values():
        (folder / file).touch()
    found = check_text(text, folder / "fastlb.toml")
    assert found.config is not None, found.errors
    return found.config


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.JSON", "application/json"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.xml", "application/xml"),
        ("a", "text/html; charset=utf-8"),
    ],
)
def test_the_name_says_what_it_is(tmp_path: Path, name: str, type_: str) -> None:
    cfg = config(tmp_path, _503=name)
    (tmp_path / name).write_bytes(b"\xffpage")
    assert load_error_pages(cfg) == {"shop": [Page(503, type_, b"\xffpage")]}


def test_all_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    cfg = config(tmp_path, _502="gone.html", _503="large.html")
    (tmp_path / "gone.html").unlink()
    (tmp_path / "large.html").write_bytes(bytes(PAGE_BYTES_MAX + 1))
    with pytest.raises(StartError) as raised:
        load_error_pages(cfg)
    gone, large = raised.value.lines
    assert f"error page 502, {tmp_path}/gone.html: No such file or directory [FLB-S170]" in gone
    assert "large.html: larger than 1024 KiB" in large


def test_a_page_may_be_empty_and_may_just_fit(tmp_path: Path) -> None:
    cfg = config(tmp_path, _502="empty.html", _503="large.html")
    (tmp_path / "large.html").write_bytes(bytes(PAGE_BYTES_MAX))
    sizes = [len(page.body) for page in load_error_pages(cfg)["shop"]]
    assert sizes == [0, PAGE_BYTES_MAX]
