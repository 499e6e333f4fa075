"""Each figure and list of `make metrics`, on a few lines of code."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

from devstack.code_metrics import (
    crumbs,
    functions,
    import_statements,
    main,
    repeated_classes,
    source_files,
)
from devstack.replaced_words import VOCABULARY, Where, read_vocabulary


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in ("services/queue", "gateway", "servicekit", "mainapp", "docs", "protos", "tests"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def write(tree: Path, path: str, text: str) -> None:
    (tree / path).write_text(dedent(text), encoding="utf-8")


def found_words(tree: Path, capsys: pytest.CaptureFixture[str], *paths: str) -> list[str]:
    """Return what `--words` prints, without what to use instead."""
    assert main(["--words", *paths], tree) == 0
    return [line.split(" -> ")[0] for line in capsys.readouterr().out.splitlines()]


def crumbs_of(tree: Path, text: str) -> list[tuple[str, str]]:
    write(tree, "services/a.py", text)
    (file,) = source_files(tree, ["services/a.py"])
    return [(each.function.name, each.caller) for each in crumbs(file)]


def test_functions_are_measured_with_their_docstring(tree: Path) -> None:
    write(
        tree,
        "services/a.py",
        '''\
        def first():
            """Return nothing."""

        class Some:
            async def second(self):
                def third(): ...
                return third
        ''',
    )
    (file,) = source_files(tree, ["services"])
    assert {(each.place, each.name, each.lines) for each in functions(file)} == {
        ("services/a.py:1", "first", 2),
        ("services/a.py:5", "second", 3),
        ("services/a.py:6", "third", 1),
    }


def test_a_private_function_with_one_caller_is_a_crumb(tree: Path) -> None:
    text = """\
        def public(): return _once() + _twice() + _twice() + open_once()
        def _once(): return 1
        def _twice(): return 2
        def _never(): return 3
        def open_once(): return 4
    """
    assert crumbs_of(tree, text) == [("_once", "public")]


def test_a_callback_is_a_caller_and_recursion_is_none(tree: Path) -> None:
    text = """\
        def _key(each): return _key(each[1:])
        ORDERED = sorted([], key=_key)
    """
    assert crumbs_of(tree, text) == [("_key", "the module itself")]


def test_a_method_is_called_by_attribute_only(tree: Path) -> None:
    text = """\
        class Some:
            def __init__(self, other): other._sum()
            def run(self, _sum): return self._step() + _sum
            def _step(self): return 1
            def _sum(self): return self._step()
    """
    assert crumbs_of(tree, text) == [("_sum", "Some.__init__")]


def test_methods_of_one_name_in_two_classes_are_told_apart(tree: Path) -> None:
    text = """\
        class First:
            def run(self): return self._step()
            def _step(self): return 1
        class Second:
            def run(self): return self._step() + self._step()
            def _step(self): return 1
    """
    assert crumbs_of(tree, text) == [("_step", "First.run")]


def test_an_import_statement_counts_once_wherever_it_stands(tree: Path) -> None:
    write(
        tree,
        "services/a.py",
        """\
        from __future__ import annotations
        from x import (one, two)
        import y, z
        def late():
            import w
        """,
    )
    (file,) = source_files(tree, ["services"])
    assert import_statements(file) == 4


def test_private_and_nested_classes_count_as_repeated(tree: Path) -> None:
    write(tree, "services/a.py", "class _Row: ...\nclass Alone: ...\n")
    write(tree, "gateway/b.py", "class Outer:\n    class _Row: ...\n")
    assert repeated_classes(source_files(tree, ["services", "gateway"])) == {
        "_Row": ["gateway/b.py:2", "services/a.py:1"]
    }


def test_a_thing_and_the_json_the_gateway_shows_of_it_share_a_name(tree: Path) -> None:
    write(tree, "services/types.py", "class Hold: ...\n")
    (tree / "gateway/resources").mkdir(parents=True)
    write(tree, "gateway/resources/fields.py", "class Hold: ...\n")
    assert not repeated_classes(source_files(tree, ["services", "gateway"]))
    write(tree, "services/store.py", "class Hold: ...\n")
    assert list(repeated_classes(source_files(tree, ["services", "gateway"]))) == ["Hold"]


def test_the_figures_stand_beside_their_aims(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tree, "services/a.py", "import x\nclass A: ...\ndef f(): return _g()\ndef _g(): ...\n")
    write(tree, "services/b.py", "import x\nimport y\nclass A: ...\ndef custody():\n" + " 1\n" * 59)
    assert main([], tree) == 0
    assert capsys.readouterr().out.splitlines() == [
        "functions: 3",
        "  half have at most 1 lines (aim: about 10)",
        "  9 in 10 have at most 1 lines (aim: under 35)",
        "  over 50 lines: 1, 33.3% (aim: under 5 %)",
        "      60 services/b.py:4 custody",
        "  private with exactly one caller: 1, 33.3% (aim: under 10 %)",
        "files: 2, lines: 67",
        "  import statements in a file, on average: 1.5 (aim: at most 7)",
        "  under 60 lines: 1, 50.0%",
        "  over 500 lines: 0 (aim: 0)",
        "class names that stand for several classes: 1 (aim: 0)",
        "words in code and documents that the vocabulary replaces: 1 (aim: 0)",
    ]


def test_lists_keep_to_the_paths_given(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imports = "\n".join(f"import m{i}" for i in range(8))
    for path in ("services/a.py", "gateway/b.py"):
        write(tree, path, f"{imports}\ndef f(): return _g()\ndef _g(): ...\nclass A: ...\n")
    write(tree, "mainapp/c.py", "class B: ...\nclass B: ...\n")
    main(["--crumbs", "gateway"], tree)
    main(["--imports", "gateway"], tree)
    main(["--classes", "gateway"], tree)
    assert capsys.readouterr().out.splitlines() == [
        "gateway/b.py:10: _g, 1 lines, called by f",
        "   8 gateway/b.py",
        "class A: gateway/b.py:11, services/a.py:11",
    ]


def test_a_path_that_is_not_there_is_refused(tree: Path) -> None:
    with pytest.raises(SystemExit):
        main(["--words", "services/gone"], tree)


def test_the_check_passes_on_a_tree_without_either(tree: Path) -> None:
    write(tree, "services/a.py", "class A: ...\ndef f(): return _g()\ndef _g(): ...\n")
    assert main(["--check"], tree) == 0


def test_the_check_fails_on_a_class_name_used_twice(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tree, "services/a.py", "class A: ...\n")
    write(tree, "gateway/b.py", "class A: ...\n")
    assert main(["--check"], tree) == 1
    assert capsys.readouterr().out == "class A: gateway/b.py:1, services/a.py:1\n"


def test_the_check_fails_on_a_replaced_word(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tree, "docs/a.md", "All is well.\nMessages in custody.\n")
    assert main(["--check"], tree) == 1
    assert capsys.readouterr().out == (
        "docs/a.md:2: custody -> in-flight messages (InFlight), visibility timeout\n"
    )


def test_quotations_in_markdown_do_not_count(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        tree,
        "docs/a.md",
        """\
        Once "in custody", `custody`, and "a long
        custody", said “custody”.
        ```
        custody
        ```
        Left in custody.
        """,
    )
    write(tree, "services/a.py", 'TEXT = "custody"\n')
    assert found_words(tree, capsys) == ["docs/a.md:6: custody", "services/a.py:1: custody"]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("custody_seconds = 1", "custody"),
        ("class CustodyStore: ...", "Custody"),
        ("def in_custody(): ...", "custody"),
        ("x = 1  # The Custody.", "Custody"),
        ("# What was set\n# aside.", "set # aside"),
        ("KEPT_OUT = 1", "KEPT OUT"),
    ],
)
def test_words_are_found_in_names_and_across_lines(
    tree: Path, capsys: pytest.CaptureFixture[str], line: str, word: str
) -> None:
    write(tree, "services/a.py", f"{line}\n")
    assert found_words(tree, capsys) == [f"services/a.py:1: {word}"]


@pytest.mark.parametrize("line", ["custodyless = 1", "unburied = 1", "x = 'keeping it here'"])
def test_parts_of_words_and_prose_with_a_word_for_names_are_left(
    tree: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    write(tree, "services/a.py", f"{line}\n")
    assert found_words(tree, capsys) == []


def test_words_for_names_are_found_where_the_name_is_defined(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        tree,
        "services/a.py",
        """\
        import os
        def make(pace): return os.walk(pace)
        class Matter:
            stay_days: int
        """,
    )
    write(
        tree,
        "protos/a.proto",
        """\
        // A matter of taste.
        message Matter {
          Matter inner_matter = 1;
        }
        """,
    )
    assert found_words(tree, capsys) == [
        "protos/a.proto:2: Matter (in Matter)",
        "protos/a.proto:3: matter (in inner_matter)",
        "services/a.py:2: pace (in pace)",
        "services/a.py:3: Matter (in Matter)",
        "services/a.py:4: stay (in stay_days)",
    ]


def test_the_names_of_files_and_packages_count(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "services/custody").mkdir()
    write(tree, "services/custody/__init__.py", "")
    write(tree, "services/claim_desk.py", "")
    assert found_words(tree, capsys) == [
        "services/claim_desk.py:1: desk (the file's name)",
        "services/custody/__init__.py:1: custody (the file's name)",
    ]


def test_entries_hold_for_their_paths(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in ("services/queue/a.py", "gateway/a.py", "tests/a.py"):
        write(tree, path, "answers = 1  # In custody.\n")
    assert found_words(tree, capsys) == [
        "gateway/a.py:1: custody",
        "services/queue/a.py:1: custody",
        "services/queue/a.py:1: answers (in answers)",
    ]
    assert found_words(tree, capsys, "gateway/a.py") == ["gateway/a.py:1: custody"]


def test_history_and_generated_files_are_left_out(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("docs/decisions", "services/queue/migrations/versions", "gateway/node_modules"):
        (tree / folder).mkdir(parents=True)
        write(tree, f"{folder}/a.md", "In custody.\n")
    assert found_words(tree, capsys) == []


def test_every_entry_of_the_vocabulary_can_be_used() -> None:
    vocabulary = read_vocabulary()
    assert VOCABULARY.name == "vocabulary.yaml"
    assert {each.where for each in vocabulary.entries} == set(Where)
    for entry in vocabulary.entries:
        assert entry.use
        assert entry.paths
        assert re.compile(entry.pattern).groups == 0, "a group would hide which entry matched"
