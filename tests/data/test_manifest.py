from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bmrl.data.manifest import Manifest
from bmrl.data.row import Row
from bmrl.data.rules import is_inside
from bmrl.errors import BMRLError, DataError, DTypeError, MissingFileError, RangeError
from bmrl.generators import ARCHITECTURES, MANIPULATIONS, Generator

HEADER = "path,generator,manipulation,architecture,role,split,group"
ROW = Row("ddpm/1.png", "ddpm", "EFS", "diffusion", "seen", "train", "a")
FAMILIES = [("none", "none")] + [(way, kind) for way in MANIPULATIONS[1:] for kind in ARCHITECTURES[1:]]


def write(folder: Path, *lines: str, header: str = HEADER) -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def error_of(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        Manifest.read(folder)
    text = str(caught.value)
    assert "\n" not in text
    return text.removeprefix(str(folder / "manifest.csv"))


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1).filter(
    lambda name: name == name.strip()
)
LABELS = NAMES.filter(lambda name: name.isprintable() and len(name) <= 100)
PATHS = st.lists(
    NAMES.filter(lambda name: not set(name) & set("/\\:") and name not in (".", "..")), min_size=1, max_size=3
)


@st.composite
def manifests(draw):
    generators = draw(
        st.dictionaries(LABELS, st.tuples(st.sampled_from(FAMILIES), st.sampled_from(["seen", "unseen"])), min_size=1)
    )
    splits: dict[str, str] = {}
    rows = []
    for path in draw(st.lists(PATHS.map("/".join), min_size=1, unique=True)):
        name, ((manipulation, architecture), role) = draw(st.sampled_from(sorted(generators.items())))
        group = draw(NAMES)
        split = splits.setdefault(group, draw(st.sampled_from(["train", "val", "test"]))) if role == "seen" else "test"
        rows.append(Row(path, name, manipulation, architecture, role, split, group))
    return rows


@given(manifests())
def test_round_trip(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("data")
    Manifest(folder, rows).write()
    assert Manifest.read(folder) == Manifest(folder, tuple(rows))


@given(manifests())
def test_select_and_generators(rows):
    manifest = Manifest(Path("data"), rows)
    for role in (None, "seen", "unseen"):
        of_role = [row for row in rows if role in (None, row.role)]
        assert manifest.select(role=role) == of_role
        for split in ("train", "val", "test"):
            assert manifest.select(split, role) == [row for row in of_role if row.split == split]
        expected = sorted({(row.generator, row.manipulation, row.architecture) for row in of_role})
        assert [(g.name, g.manipulation, g.architecture) for g in manifest.generators(role)] == expected


def test_written_file_is_plain_csv(tmp_path):
    odd = replace(ROW, path='ddpm/a "b",\nc.png', group="ü", source="set@1, part 2")
    assert Manifest(tmp_path / "new" / "folder", (ROW, odd)).write() == tmp_path / "new" / "folder" / "manifest.csv"
    with (tmp_path / "new" / "folder" / "manifest.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert lines == [
        [*HEADER.split(","), "source"],
        ["ddpm/1.png", "ddpm", "EFS", "diffusion", "seen", "train", "a", ""],
        ['ddpm/a "b",\nc.png', "ddpm", "EFS", "diffusion", "seen", "train", "ü", "set@1, part 2"],
    ]
    assert Manifest.read(tmp_path / "new" / "folder").rows[1].collection == "set"
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["manifest.csv"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    Manifest(tmp_path, (ROW,)).write()
    before = (tmp_path / "manifest.csv").read_bytes()
    manifest = Manifest(tmp_path, (ROW,))
    object.__setattr__(manifest, "rows", (ROW, replace(ROW, path="\ud800")))  # can't be encoded half way
    with pytest.raises(UnicodeEncodeError):
        manifest.write()
    assert (tmp_path / "manifest.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.csv"]


def test_reads_a_folder_a_file_other_columns_and_a_byte_order_mark(tmp_path):
    columns = "group,remark,path,generator,manipulation,architecture,role,split"
    path = write(tmp_path, "a,x@1,ddpm/1.png,ddpm,EFS,diffusion,seen,train", "", header="\ufeff" + columns)
    other = path.rename(tmp_path / "other.csv")
    assert Manifest.read(other) == Manifest(tmp_path, (ROW,))
    other.rename(path)
    assert Manifest.read(str(tmp_path)) == Manifest(tmp_path, (ROW,))


def test_paths_of_a_row():
    manifest = Manifest(Path("data"), (ROW,))
    assert manifest.image_path(ROW) == Path("data/ddpm/1.png")
    assert manifest.parsing_path(replace(ROW, path="a.b/c.d.jpg")) == Path("data/parsing/a.b/c.d.png")


def test_generators_are_sorted_by_name():
    rows = [replace(ROW, path=name, generator=name) for name in ("b", "a")]
    rows.append(Row("c", "c", "none", "none", "unseen", "test", "c"))
    manifest = Manifest(Path("data"), rows)
    assert [generator.name for generator in manifest.generators()] == ["a", "b", "c"]
    assert manifest.generators("unseen") == [Generator(name="c", manipulation="none", architecture="none")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "ddpm/1.png,ddpm,EFX,diffusion,seen,train,a",
            "column manipulation: expected none, EFS, FS, AM or FR, got 'EFX'; did you mean EFS?",
        ),
        (
            "ddpm/1.png,ddpm,EFS,gan,seen,train,a",
            "column architecture: expected none, GAN, diffusion, flow, autoregressive, autoencoder, graphics or "
            "unknown, got 'gan'; did you mean GAN?",
        ),
        ("ddpm/1.png,ddpm,EFS,GAN,known,train,a", "column role: expected seen or unseen, got 'known'"),
        ("ddpm/1.png,ddpm,EFS,GAN,seen,dev,a", "column split: expected train or val or test, got 'dev'"),
        ("ddpm/1.png,ddpm,EFS,GAN,seen,train,", "column group: expected a name without outer spaces, got ''"),
        (
            "ddpm/1.png, ddpm,EFS,GAN,seen,train,a",
            "column generator: expected 1 to 100 printable characters without outer spaces, got ' ddpm'",
        ),
        ("ddpm/1.png,ddpm,EFS,GAN,unseen,val,a", "column split: expected test for role unseen, got val"),
        (
            "ddpm/1.png,ddpm,none,GAN,seen,train,a",
            "column architecture: expected none exactly for photographs (manipulation none), got GAN with "
            "manipulation none",
        ),
        (
            "ddpm/1.png,ddpm,FR,none,seen,train,a",
            "column architecture: expected none exactly for photographs (manipulation none), got none with "
            "manipulation FR",
        ),
    ],
)
def test_rejects_values(tmp_path, line, message):
    write(tmp_path, "real/1.png,real,none,none,seen,train,b", line)
    assert error_of(tmp_path) == f", line 3, {message}"


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../a.png", "a/../../b.png", "", ".", "C:/a.png", "C:a.png", "a\\b.png", "a\0b"]
)
def test_rejects_paths_that_are_not_inside(tmp_path, path):
    write(tmp_path, f"{path},ddpm,EFS,GAN,seen,train,a")
    expected = "a path relative to the manifest's folder and inside it, with / between the parts"
    assert error_of(tmp_path) == f", line 2, column path: expected {expected}, got {path!r}"


@pytest.mark.parametrize(
    ("change", "column", "message"),
    [
        ({}, "path", "expected each path once, got 'ddpm/1.png' as in {first}"),
        ({"path": "ddpm/./1.png"}, "path", "expected each path once, got 'ddpm/./1.png' as in {first}"),
        (
            {"path": "2", "architecture": "GAN"},
            "generator",
            "expected one manipulation, architecture and role for 'ddpm', "
            "got EFS GAN seen here and EFS diffusion seen in {first}",
        ),
        (
            {"path": "2", "role": "unseen", "split": "test"},
            "generator",
            "expected one manipulation, architecture and role for 'ddpm', "
            "got EFS diffusion unseen here and EFS diffusion seen in {first}",
        ),
        (
            {"path": "2", "generator": "vqgan", "split": "val"},
            "group",
            "expected one split for the group 'a', got val here and train in {first}",
        ),
    ],
)
def test_rejects_rows_that_contradict(tmp_path, change, column, message):
    rows = (ROW, replace(ROW, **change))
    with pytest.raises(DataError) as caught:
        Manifest(tmp_path, rows)
    assert str(caught.value) == f"manifest row 1, column {column}: " + message.format(first="manifest row 0")
    path = write(tmp_path, *(",".join(getattr(row, name) for name in HEADER.split(",")) for row in rows))
    assert error_of(tmp_path) == f", line 3, column {column}: " + message.format(first=f"{path}, line 2")


@pytest.mark.parametrize("name", ["a\rb", "a\0b", "\udcff"])
def test_rejects_what_a_csv_file_can_not_hold(name):
    for column in ("path", "generator", "group"):
        with pytest.raises(DataError, match=f"^manifest row 0, column {column}: expected "):
            Manifest(Path("data"), (replace(ROW, **{column: name}),))


def test_an_unseen_image_may_share_a_group_with_a_seen_one():
    Manifest(Path("data"), (ROW, Row("e4s/1.png", "e4s", "FS", "GAN", "unseen", "test", "a")))


@given(manifests())
def test_no_group_of_seen_images_crosses_splits(rows):
    """A manifest that is accepted keeps the rule: move one row of a shared group, and the manifest is refused."""
    seen = [row for row in rows if row.role == "seen"]
    for row in seen:
        if sum(other.group == row.group for other in seen) > 1:
            moved = replace(row, split="val" if row.split != "val" else "test")
            with pytest.raises(DataError, match="column group: expected one split for the group"):
                Manifest(Path("data"), [moved if other is row else other for other in rows])


def test_rejects_empty_files(tmp_path):
    path = write(tmp_path)
    assert error_of(tmp_path) == ": expected at least one row, got none"
    path.write_bytes(b"")
    assert error_of(tmp_path) == f": expected the columns {HEADER.replace(',', ', ')}, got an empty file"
    with pytest.raises(DataError, match=r"^manifest: expected at least one row, got none$"):
        Manifest(tmp_path, ())


def test_rejects_columns(tmp_path):
    write(tmp_path, header="path,generator,manipulation,architecture,role,split")
    assert error_of(tmp_path) == (
        ", line 1: expected one column group, got 0 of them in path, generator, manipulation, architecture, role, split"
    )
    write(tmp_path, header=f"{HEADER},path")
    assert error_of(tmp_path).startswith(", line 1: expected one column path, got 2 of them in path, ")
    write(tmp_path, "ddpm/1.png,ddpm,EFS,GAN,seen,train")
    assert error_of(tmp_path) == ", line 2: expected 7 values, got 6"


def test_line_numbers_count_lines_of_the_file(tmp_path):
    write(tmp_path, '"a\nb.png",ddpm,EFS,GAN,seen,train,a', "", "c.png,ddpm,EFS,GAN,seen,never,a")
    assert error_of(tmp_path).startswith(", line 5, column split: ")


def test_rejects_other_bytes_and_broken_quotes(tmp_path):
    path = write(tmp_path)
    path.write_bytes(HEADER.encode() + b"\n\xff\xfe")
    assert error_of(tmp_path).startswith(": expected UTF-8 text, got other bytes at byte ")
    write(tmp_path, 'a.png,ddpm,EFS,GAN,seen,train,"a')
    assert error_of(tmp_path) == ", line 2: expected CSV, got: unexpected end of data"


def test_rejects_missing_and_unreadable_files(tmp_path):
    with pytest.raises(MissingFileError, match=r"got nothing at this path; bmrl import folder makes a data folder of"):
        Manifest.read(tmp_path)
    for path in (tmp_path / "other.csv", tmp_path / "folder"):
        with pytest.raises(MissingFileError, match=r": expected a CSV file, got nothing at this path$"):
            Manifest.read(path)
    (tmp_path / "manifest.csv").mkdir()
    assert error_of(tmp_path) == ": expected a CSV file, got a folder"
    (tmp_path / "manifest.csv").rmdir()
    os.mkfifo(tmp_path / "manifest.csv")
    assert error_of(tmp_path) == ": expected a readable file, got: a named pipe"
    for folder in ("a" * 300, "a\0b", "a\ud800"):
        with pytest.raises((DataError, MissingFileError)) as caught:
            Manifest.read(tmp_path / folder)
        assert str(caught.value).isprintable()
    with pytest.raises(DTypeError, match="folder: expected a path, got int"):
        Manifest.read(3)


@pytest.mark.parametrize(("separator", "called"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_says_which_separator_is_expected(tmp_path, separator, called):
    lines = ["ddpm/1.png,ddpm,EFS,GAN,seen,train,a"]
    write(tmp_path, *(line.replace(",", separator) for line in lines), header=HEADER.replace(",", separator))
    assert error_of(tmp_path) == f", line 1: expected columns separated by commas, got {called}"


@pytest.mark.parametrize(
    "name",
    [
        "dd\x1b[2Jpm",
        "dd\npm",
        "dd\x07pm",
        "dd\u202epm",
        "dd\u2028pm",
        "dd\x9bpm",
        "dd\u200bpm",
        "dd\u3000pm",
        "dd\u00adpm",
    ],
)
def test_rejects_generators_that_act_on_a_terminal(tmp_path, name):
    with pytest.raises(DataError) as caught:
        Manifest(tmp_path, (replace(ROW, generator=name),))
    expected = "expected 1 to 100 printable characters without outer spaces"
    assert str(caught.value) == f"manifest row 0, column generator: {expected}, got {name!r}"
    assert str(caught.value).isprintable()


@given(st.text(st.sampled_from("aé \u200b\u3000\xad\U0001f600"), max_size=4) | st.just("a" * 100) | st.just("a" * 101))
def test_a_manifest_and_a_model_take_the_same_names(name):
    assert refusal(lambda: Manifest(Path("faces"), (replace(ROW, generator=name),))) == (
        refusal(lambda: Generator(name=name, manipulation="EFS", architecture="GAN"))
    )


def refusal(call):
    """Return what is wrong with a name, without its place."""
    try:
        call()
    except BMRLError as error:
        return str(error).partition(": ")[2]
    return ""


@given(st.text(st.sampled_from("ab./:\\ C\n"), max_size=8))
def test_a_path_is_inside_as_pathlib_says(path):
    assume(path[1:2] != ":" or path[0].isalpha())  # a drive to us, none to pathlib
    drive = PureWindowsPath(path).drive
    inside = bool(PurePosixPath(path).name) and ".." not in PurePosixPath(path).parts
    expected = inside and not PurePosixPath(path).is_absolute() and not drive and "\\" not in path
    assert is_inside(path) == expected


@given(st.lists(st.text(st.sampled_from("ab./"), min_size=1, max_size=6), min_size=1, max_size=4, unique=True))
def test_spellings_of_one_path_are_found(paths):
    paths = [path for path in paths if is_inside(path)]
    rows = [replace(ROW, path=path) for path in paths]
    if len({PurePosixPath(path) for path in paths}) == len(paths):
        assert not rows or Manifest(Path("data"), rows)
    else:
        with pytest.raises(DataError, match="column path: expected each path once"):
            Manifest(Path("data"), rows)


def test_rows_that_agree_with_earlier_ones_are_checked_too(tmp_path):
    """What many rows share is checked once; that must not hide a row that differs in one column."""
    good = "x{}.png,ddpm,EFS,GAN,seen,train,g{}"
    for change in (("EFS", "FS"), ("GAN", "diffusion"), ("seen,train", "unseen,test"), ("train,g1", "val,g0")):
        lines = [good.format(0, 0), good.format(1, 1).replace(*change)]
        write(tmp_path, *lines)
        assert error_of(tmp_path).startswith(", line 3, column g")
    write(tmp_path, good.format(0, 0), good.format(1, 1).replace("seen", "known"))
    assert error_of(tmp_path).startswith(", line 3, column role: expected seen or unseen, got 'known'")


def test_rejects_other_splits_and_roles():
    manifest = Manifest(Path("data"), (ROW,))
    with pytest.raises(RangeError, match="split: expected 'train' or 'val' or 'test', got 'dev'"):
        manifest.select("dev")
    with pytest.raises(RangeError, match="role: expected 'seen' or 'unseen', got 'known'"):
        manifest.generators("known")
