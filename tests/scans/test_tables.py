"""Tables of data sets: every cell as text, in any encoding, with any separator; what can't be read right is refused."""

import itertools

import pandas as pd
import pytest

from flipside.scans.tables import TableError, read_table

ROWS = {"id": ["NA", "null", "nan", "None", "007", "123", "123.0", "1e5", "true", ""],
        "M\u00fcnchen": ["a\nb", 'a"b', "a,b;c\td|e", " x ", "\u20ac", "M\u00fcller", "Mu\u0308ller", "-", "0", "1"]}
READ = ROWS | {"M\u00fcnchen": [*ROWS["M\u00fcnchen"][:3], "x", "\u20ac", "M\u00fcller", "M\u00fcller", "-", "0", "1"]}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")
KINDS = list(itertools.product(ENCODINGS, ",;\t|", ("\n", "\r\n"), (None, "given"), ("", "sep")))


def as_csv(separator, end, trailing):
    frame = pd.DataFrame(ROWS)
    lines = frame.to_csv(sep=separator, index=False, lineterminator="\x00", quoting=1)
    tail = separator if trailing else ""
    head, *body = lines.split("\x00")[:-1]
    return end.join([head, *(line + tail for line in body)]) + end


@pytest.mark.parametrize(("encoding", "separator", "end", "given", "trailing"), KINDS)
def test_every_cell_is_the_text_that_stands_there(tmp_path, encoding, separator, end, given, trailing):
    (tmp_path / "t.csv").write_bytes(as_csv(separator, end, trailing).encode(encoding))
    found = read_table(tmp_path / "t.csv", separator if given else None)
    assert found.to_dict("list") == READ


def test_windows_1252(tmp_path):
    (tmp_path / "t.csv").write_bytes("Befund;Größe\nM\u00fcller;5\u20ac\n".encode("cp1252"))
    assert read_table(tmp_path / "t.csv").to_dict("list") == {"Befund": ["M\u00fcller"], "Größe": ["5\u20ac"]}


def test_separators_at_line_ends_and_empty_lines(tmp_path):
    for text in ("a;b;\n1;2;\n;;\n\n3;4;\n", "a;b\n1;2;\n3;4;\n", "a;b;;\n1;2;;\n3;4;;\n", "a;b\n1;2\n3;4\n;\n"):
        (tmp_path / "t.csv").write_text(text)
        assert read_table(tmp_path / "t.csv", ";").to_dict("list") == {"a": ["1", "3"], "b": ["2", "4"]}


@pytest.mark.parametrize(("text", "message"), [
    ("a,b\n1,2,3\n", "line 2: 3 fields, expected 2"), ("a,b,c\n1,2,3\n1,2\n", "line 3: 2 fields, expected 3"),
    ("a,b,a\n1,2,3\n", "2 columns named 'a'"), ("a,a \n1,2\n", "2 columns named 'a'"), ("", "is empty"),
    ("\n\n", "is empty"), ('a,b\n1,"2\n', "unexpected end of data.*quotation marks"),
    ('a,b\n1,"2"3\n', "line 2: .*quotation marks")])
def test_lines_that_do_not_fit_are_refused(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(TableError, match=f"t.csv.*{message}"):
        read_table(tmp_path / "t.csv", ",")


def test_other_encodings_are_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"a,b\n\x81\x8d,1\n")
    with pytest.raises(TableError, match="none of the encodings.*save it as UTF-8"):
        read_table(tmp_path / "t.csv")


def test_parquet_has_numbers_as_they_were_meant(tmp_path):
    frame = pd.DataFrame({"id": ["NA", "007", None], "n": [123, 4, 5], "with_gap": [123.0, None, 0.5],
                          "flag": [True, False, True], "kind": pd.Categorical(["a", "null", "a"])})
    frame.to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").to_dict("list") == {
        "id": ["NA", "007", ""], "n": ["123", "4", "5"], "with_gap": ["123", "", "0.5"],
        "flag": ["True", "False", "True"], "kind": ["a", "null", "a"]}
    (tmp_path / "u.parquet").write_bytes(b"no parquet")
    with pytest.raises(TableError, match="can't be read as Parquet"):
        read_table(tmp_path / "u.parquet")
    pd.DataFrame({"a": [[1]]}).to_parquet(tmp_path / "v.parquet")
    with pytest.raises(TableError, match="column 'a' holds list"):
        read_table(tmp_path / "v.parquet")


def test_a_line_with_too_few_fields_is_named_without_a_given_separator(tmp_path):
    (tmp_path / "t.csv").write_text("path,label,patient\na.png,0\nb.png,1,p\n")
    with pytest.raises(TableError, match="line 2: 2 fields, expected 3"):
        read_table(tmp_path / "t.csv")


def test_a_spreadsheets_line_with_the_separator(tmp_path):
    (tmp_path / "t.csv").write_text('sep=;\na;b\n"1;5";2,0\n')
    assert read_table(tmp_path / "t.csv").to_dict("list") == {"a": ["1;5"], "b": ["2,0"]}
