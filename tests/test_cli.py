"""The command line: what it writes, and that every mistake ends in one line, an exit code, and nothing written."""

import csv
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from command_line import call
from PIL import Image

import speciarl
from speciarl.cli import doctor
from speciarl.cli.app import ORDER
from speciarl.core.config import available
from speciarl.core.scale import UserError
from speciarl.data.trees import available_trees
from speciarl.report.calibration import compare_cards

ROOT = Path(__file__).parent.parent
START = "from speciarl.cli import main; main()"
WITHOUT_TORCH = (
    "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'trl', 'pandas', 'datasets'))); " + START
)


def ok(*arguments) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def fails(line: str, *arguments) -> None:
    "The command ends with exit code 2 and exactly this line."
    result = call(*arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {line}\n")


def python(code: str, *arguments, cwd=None) -> subprocess.CompletedProcess:
    "A process of its own, as from a shell."
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=environment
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    "An empty working folder; paths in messages are relative to it."
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, content: str | bytes) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def listing(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def rows(path: str | Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


PAIRS = """sample_id,label,answer,dataset,note
1,hooded warbler,Hooded Warbler,birds,"kept, as it is"
2,hooded warbler,warbler,birds,
3,hooded warbler,bird,birds,
4,hooded warbler,ovenbird,birds,
5,beagle,None,,"two
lines"
6,beagle,  ,pets,
7,beegle,dog,pets,
"""


# --- the application --------------------------------------------------------------------------------------------------


def test_version_and_help():
    assert ok("--version") == f"speciarl {speciarl.__version__}\n"
    overview = ok()
    assert overview == ok("--help") == ok("-h")
    for command in ("judge", "score", "evaluate", "train", "base", "reproduce", "doctor"):
        assert f"\n  {command} " in overview
        assert ok(command, "--help").startswith(f"Usage: speciarl {command} ")


def test_help_is_plain_text_and_loads_nothing_heavy():
    code = (
        f"import sys\ntry:\n {START.replace('; ', chr(10) + ' ')}\nfinally:\n print(sorted({{'numpy', 'torch', "
        f"'rich', 'matplotlib', 'PIL'}} & set(sys.modules)))"
    )
    result = python(code, "--help")
    assert result.returncode == 0 and result.stdout.isascii()
    assert result.stdout.endswith("\n[]\n")


def test_the_module_is_the_command(folder):
    code = "import runpy, sys; sys.argv[0] = 'speciarl'; runpy.run_module('speciarl.cli', run_name='__main__')"
    result = python(code, "--version")
    assert (result.returncode, result.stdout) == (0, f"speciarl {speciarl.__version__}\n")


def test_every_command_has_its_place_in_the_overview():
    names = [line.split()[0] for line in ok("--help").partition("Commands:\n")[2].splitlines()]
    assert names == list(ORDER)


@pytest.mark.parametrize(
    "arguments, what, command",
    [
        (["jugde"], "'jugde'. Did you mean 'judge'", "speciarl"),
        (["--verbose"], "No such option: --verbose", "speciarl"),
        (["judge"], "Missing argument 'PAIRS.csv|RUN'", "speciarl judge"),
        (["closed", "--model", "m", "--data", "d"], "Missing option '--out'", "speciarl closed"),
        (["score", "a.csv", "b.csv"], "unexpected extra argument", "speciarl score"),
        (
            ["evaluate", "--model", "m", "--data", "d", "--out", "r", "--n", "0"],
            "Invalid value for '--n': ",
            "speciarl evaluate",
        ),
        (
            ["evaluate", "--model", "m", "--data", "d", "--out", "r", "--limit", "few"],
            "Invalid value for '--limit': ",
            "speciarl evaluate",
        ),
        (["reproduce", "--profil", "smoke"], "No such option: --profil", "speciarl reproduce"),
    ],
)
def test_misuse_is_one_line_too(folder, arguments, what, command):
    "The words are typer's, the form is ours."
    result = call(*arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert (
        result.stderr.startswith("error: ")
        and what in result.stderr
        and result.stderr.endswith(f"; see {command} --help\n")
    )
    assert listing(folder) == []


def test_a_defect_keeps_its_traceback(folder, monkeypatch):
    def defect(*_):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("speciarl.cli.judging.summary", defect)
    result = call("judge", write("pairs.csv", PAIRS), "--out", "verdicts.csv")
    assert isinstance(result.exception, ZeroDivisionError) and "error:" not in result.stderr


def test_ctrl_c_ends_with_130(folder, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("speciarl.judges.verdict.judge_rows", interrupt)
    assert call("judge", write("pairs.csv", PAIRS), "--out", "verdicts.csv").exit_code == 130
    assert listing(folder) == ["pairs.csv"]


# --- judge ------------------------------------------------------------------------------------------------------------


def test_judge_adds_three_columns_and_keeps_the_rest(folder):
    output = ok("judge", write("pairs.csv", PAIRS), "--out", "verdicts.csv")
    assert output.startswith("7 pairs judged\n") and output.endswith("wrote verdicts.csv\n")
    assert "  specific                          1    14.3%\n" in output
    assert "  no verdict: unknown label         1    14.3%\n" in output
    found = rows("verdicts.csv")
    assert [row["category"] for row in found] == [
        "specific",
        "less specific",
        "generic",
        "wrong",
        "abstain",
        "wrong",
        "",
    ]
    assert [row["source"] for row in found] == ["tree"] * 5 + ["format", "unknown label"]
    assert found[5]["reason"] == "no <answer> in the output"
    assert "near labels: beagle" in found[6]["reason"]
    assert [{k: row[k] for k in rows("pairs.csv")[0]} for row in found] == rows("pairs.csv")
    assert list(found[0]) == ["sample_id", "label", "answer", "dataset", "note", "category", "source", "reason"]
    assert listing(folder) == ["pairs.csv", "verdicts.card.json", "verdicts.csv"]


def test_judge_is_deterministic_and_accepts_a_byte_order_mark(folder):
    write("pairs.csv", PAIRS)
    write("marked.csv", b"\xef\xbb\xbf" + PAIRS.encode())
    for name in ("pairs", "marked"):
        ok("judge", f"{name}.csv", "--out", f"{name}_verdicts.csv")
    assert Path("pairs_verdicts.csv").read_bytes() == Path("marked_verdicts.csv").read_bytes()


def test_dataset_is_for_rows_that_name_none(folder):
    write("pairs.csv", "label,answer,dataset\nbeagle,dog,\nbeagle,dog,pets\nhooded warbler,bird,birds\n")
    ok("judge", "pairs.csv", "--out", "verdicts.csv", "--dataset", "birds")
    assert [row["source"] for row in rows("verdicts.csv")] == ["unknown label", "tree", "tree"]


def test_a_tree_of_ones_own(folder):
    write("tools.tree", "@dataset tools\n@title Tools\n@domain tool\ntool\n  saw\n    * fret saw\n    * rip saw\n")
    write("pairs.csv", "label,answer\nfret saw,saw\nrip saw,fret saw\nrip saw,tool\n")
    ok("judge", "pairs.csv", "--out", "verdicts.csv", "--dataset", "tools.tree")
    assert [row["category"] for row in rows("verdicts.csv")] == ["less specific", "wrong", "generic"]


def test_strict_counts_undecided_answers_as_wrong(folder):
    write("pairs.csv", "label,answer\nhooded warbler,a quux\n")
    ok("judge", "pairs.csv", "--out", "verdicts.csv")
    ok("judge", "pairs.csv", "--out", "strict.csv", "--strict")
    assert [rows(name)[0]["category"] for name in ("verdicts.csv", "strict.csv")] == ["", "wrong"]


def test_no_known_label_is_exit_code_1_and_the_table_is_written(folder):
    write("pairs.csv", "label,answer\nhoodad warbler,bird\nx,\n")
    result = call("judge", "pairs.csv", "--out", "verdicts.csv")
    assert result.exit_code == 1
    assert (
        result.stderr
        == "error: no label of pairs.csv is known; the column reason of verdicts.csv names labels that come near, or "
        "make a tree of your own classes: speciarl tree from-table TAXONOMY.csv --out MY.tree\n"
    )
    assert "near labels: Hooded Warbler" in rows("verdicts.csv")[0]["reason"]
    write("one.csv", "label,answer\nhoodad warbler,bird\nhooded warbler,bird\n")
    ok("judge", "one.csv", "--out", "one_verdicts.csv")
    write("silent.csv", "label,answer\nhooded warbler,\n")  # nothing to ask the judge: not a question of labels
    ok("judge", "silent.csv", "--out", "silent_verdicts.csv")


@pytest.mark.parametrize(
    "content, line",
    [
        (b"", "pairs.csv: the file is empty; it needs a header line and one line per row"),
        (b"label,answer\n", "pairs.csv: a header but no rows; add one line per row"),
        (
            b"label,guess\na,b\n",
            "pairs.csv: no column 'answer' (found 'label', 'guess'); name it with --answer-column, or add it",
        ),
        (
            b"class,answer\na,b\n",
            "pairs.csv: no column 'label' (found 'class', 'answer'); name it with --label-column, or add it",
        ),
        (b"label,answer,label\na,b,c\n", "pairs.csv: column 'label' appears twice in the header; rename or drop one"),
        (b"label,answer\na,\0\n", "pairs.csv: NUL byte in line 2; save as plain UTF-8 text"),
        ("label,answer\ncr\u00eape,x\n".encode("latin-1"), "pairs.csv: not UTF-8 (byte 0xea in line 2); save as UTF-8"),
        (
            b"label,answer\na," + b"x" * 1_000_000,
            "pairs.csv: line 2, column 'answer': a cell of more than 100,000 characters; shorten it, or close its "
            "quotation mark",
        ),
        (
            b"label,answer\na,b,c\n",
            "pairs.csv: line 2 has 3 cells, the header 2; put a cell that contains a comma in quotation marks",
        ),
        (b"label,answer,reason\na,b,c\n", "pairs.csv: the column 'reason' is one this command adds; rename or drop it"),
        (
            b"label,answer,category\na,b,wrong\n",
            "pairs.csv: the column 'category' is one this command adds; rename or drop it",
        ),
        (
            b"label,answer,dataset\na,b,unicorns\n",
            f"unknown data set 'unicorns': use one of {', '.join(available_trees())}",
        ),
    ],
)
def test_a_bad_table_is_one_line_and_writes_nothing(folder, content, line):
    write("pairs.csv", content)
    fails(line, "judge", "pairs.csv", "--out", "verdicts.csv")
    assert listing(folder) == ["pairs.csv"]


def test_names_judge_does_not_know(folder):
    write("pairs.csv", PAIRS)
    fails("no_such.csv: no such file; check the path", "judge", "no_such.csv", "--out", "verdicts.csv")
    fails(
        "unknown judge 'oracle': use one of taxonomy, llm, cascade",
        "judge",
        "pairs.csv",
        "--out",
        "verdicts.csv",
        "--judge",
        "oracle",
    )
    trees = ", ".join(available_trees())
    fails(
        f"no label tree 'unicorns': use one of {trees}, or the path of a .tree file",
        "judge",
        "pairs.csv",
        "--out",
        "verdicts.csv",
        "--dataset",
        "unicorns",
    )
    assert listing(folder) == ["pairs.csv"]


def test_outputs_that_cannot_be(folder):
    before = write("pairs.csv", PAIRS).read_bytes()
    write("verdicts.csv", "mine")
    fails("verdicts.csv exists; choose another --out or pass --force", "judge", "pairs.csv", "--out", "verdicts.csv")
    fails("pairs.csv is the input; choose another --out", "judge", "pairs.csv", "--out", "./pairs.csv", "--force")
    fails(
        "cannot write verdicts.csv/v.csv: File exists; choose a folder you may write to",
        "judge",
        "pairs.csv",
        "--out",
        "verdicts.csv/v.csv",
    )
    fails(
        "cannot write /proc/none/v.csv: No such file or directory; choose a folder you may write to",
        "judge",
        "pairs.csv",
        "--out",
        "/proc/none/v.csv",
    )
    assert listing(folder) == ["pairs.csv", "verdicts.csv"]
    assert Path("pairs.csv").read_bytes() == before and Path("verdicts.csv").read_text() == "mine"
    ok("judge", "pairs.csv", "--out", "verdicts.csv", "--force")
    assert len(rows("verdicts.csv")) == 7


def test_from_a_shell_without_torch(folder):
    "Exit codes, streams, and that judging and scoring need neither torch nor pandas."
    write("pairs.csv", PAIRS)
    write("none.csv", "label,answer\nxyzzy,bird\n")
    results = [
        python(WITHOUT_TORCH, *arguments.split(), cwd=folder)
        for arguments in (
            "judge pairs.csv --out verdicts.csv",
            "judge pairs.csv --out verdicts.csv",
            "judge none.csv --out unknown.csv",
            "score verdicts.csv --out scores",
        )
    ]
    assert [result.returncode for result in results] == [0, 2, 1, 0], [result.stderr for result in results]
    assert [result.stderr.count("\n") for result in results] == [0, 1, 1, 0]
    assert (
        results[1].stdout == ""
        and results[1].stderr == "error: verdicts.csv exists; choose another --out or pass --force\n"
    )
    assert "wrote scores/scores.csv" in results[3].stdout


# --- score ------------------------------------------------------------------------------------------------------------

VERDICTS = "label,answer,category\n" + "".join(
    f"a,b,{category}\n"
    for category in ("specific", "more specific", "less specific", "generic", "wrong", "abstain", "", "")
)


def scores(path="out/scores.csv") -> list[dict[str, str]]:
    return rows(path)


def test_score_of_a_table_written_by_hand(folder):
    output = ok("score", write("verdicts.csv", VERDICTS), "--out", "out")
    (line,) = scores()
    assert (line["group"], line["answers"], line["n"]) == ("all", "one answer", "8")
    assert float(line["S"]) == pytest.approx((1 + 1 + 0.6 + 0.2) / 4) and float(line["C"]) == pytest.approx(
        4 / 6, abs=1e-6
    )
    assert float(line["HM"]) == pytest.approx(2 * 0.7 * (4 / 6) / (0.7 + 4 / 6), abs=1e-6)
    left_out = [float(line[name]) for name in ("undecided", "missing", "C bounds low", "C bounds high", "C strict")]
    assert left_out == [0.25, 0, 0.5, 0.75, 0.5]  # without a source nobody can say that the judge failed
    assert line["format failures"] == "" and float(line["levels wrong"]) == pytest.approx(1 / 6, abs=1e-6)
    for metric in ("S", "C", "HM"):
        assert float(line[f"{metric} low"]) <= float(line[metric]) <= float(line[f"{metric} high"])
    assert (
        "17/17/17/17/17/17" in output
        and ".500 to .750" in output
        and output.endswith("wrote out/scores.csv, .md, .tex, .pdf, .png\n")
    )
    assert listing(folder / "out") == [
        "scores.csv",
        "scores.json",
        "scores.md",
        "scores.pdf",
        "scores.png",
        "scores.tex",
    ]
    assert Path("out/scores.png").read_bytes().startswith(b"\x89PNG") and Path(
        "out/scores.pdf"
    ).read_bytes().startswith(b"%PDF")
    assert (
        "\\toprule" in Path("out/scores.tex").read_text() and "| group | answers |" in Path("out/scores.md").read_text()
    )


def test_score_without_out_only_prints(folder):
    output = ok("score", write("verdicts.csv", VERDICTS))
    assert "wrote" not in output and listing(folder) == ["verdicts.csv"]
    widths = {len(line) for line in output.split("\n\n")[0].splitlines()}
    assert len(widths) == 1, "the columns are aligned"


def test_score_writes_the_same_bytes_again(folder):
    write("verdicts.csv", VERDICTS)
    ok("score", "verdicts.csv", "--out", "out")
    first = {path: path.read_bytes() for path in Path("out").iterdir()}
    fails("out/scores.csv exists; choose another --out or pass --force", "score", "verdicts.csv", "--out", "out")
    ok("score", "verdicts.csv", "--out", "out", "--force")
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == first


def test_format_failures_are_counted_and_wrong(folder):
    write("verdicts.csv", "category,source\nwrong,format\nwrong,tree\nspecific,tree\n,undecided\n")
    ok("score", "verdicts.csv", "--out", "out")
    (line,) = scores()
    assert float(line["C"]) == pytest.approx(1 / 3, abs=1e-6) and float(line["format failures"]) == pytest.approx(
        1 / 3, abs=1e-6
    )


def test_by_dataset(folder):
    write("verdicts.csv", "dataset,category\npets,specific\nbirds,wrong\npets,generic\n,specific\n")
    ok("score", "verdicts.csv", "--by", "dataset", "--out", "out")
    assert [(line["group"], line["n"], line["C"]) for line in scores()] == [
        ("(none)", "1", "1"),
        ("birds", "1", "0"),
        ("pets", "2", "1"),
        ("all", "4", "0.75"),
    ]


def test_best_of_n(folder):
    write(
        "verdicts.csv",
        "sample_id,rollout,category,source\nb,1,wrong,tree\na,0,generic,tree\na,1,more "
        "specific,tree\nb,0,wrong,format\nc,1,,undecided\nc,0,abstain,tree\n",
    )
    ok("score", "verdicts.csv", "--out", "out")
    one, best = scores()
    assert (one["answers"], one["n"], best["answers"], best["n"]) == ("one answer", "6", "best of 2", "3")
    assert (
        float(one["C"]) == 0.4
        and float(one["format failures"]) == 0.2
        and float(one["undecided"]) == pytest.approx(1 / 6, abs=1e-6)
        and float(one["missing"]) == 0
    )
    assert float(best["S"]) == 1 and float(best["C"]) == pytest.approx(1 / 3, abs=1e-6) and float(best["missing"]) == 0


def test_samples_of_two_data_sets_may_share_an_id(folder):
    write("verdicts.csv", "dataset,sample_id,category\npets,1,specific\nbirds,1,wrong\n")
    assert "best of" not in ok("score", "verdicts.csv")


def test_without_any_verdict_nothing_is_made_up(folder):
    write("verdicts.csv", "label,answer,category\na,b,\na,c,\n")
    output = ok("score", "verdicts.csv", "--out", "out")
    (line,) = scores()
    assert (line["S"], line["C"], line["HM"], line["undecided"], line["C bounds low"], line["C bounds high"]) == (
        "",
        "",
        "",
        "1",
        "0",
        "1",
    )
    assert ".000 to 1.000" in output


@pytest.mark.parametrize(
    "content, line",
    [
        (
            "label,answer\na,b\n",
            "verdicts.csv: no column 'category' (found 'label', 'answer'); name it with --category-column, or make "
            "it with "
            "speciarl judge",
        ),
        (
            "category\nspecific\nless_specific\n",
            "verdicts.csv: row 2: unknown category 'less_specific': use one of wrong, abstain, generic, less "
            "specific, specific, more specific",
        ),
        (
            "sample_id,rollout,category\na,0,wrong\na,0,generic\n",
            "verdicts.csv: row 2: sample 'a' has rollout '0' twice; drop one, or number them in a column 'rollout'",
        ),
        (
            "sample_id,category\na,wrong\na,generic\n",
            "verdicts.csv: row 2: sample 'a' has rollout '' twice; drop one, or number them in a column 'rollout'",
        ),
        (
            "rollout,category\n0,wrong\n1,generic\n",
            "verdicts.csv: several rollouts but no column 'sample_id'; add it, so that it is known which belong "
            "together",
        ),
        (
            "sample_id,rollout,category\na,0,wrong\na,1,wrong\nb,0,wrong\n",
            "verdicts.csv: sample 'b' has 1 rollouts, the first one 2; finish the run or drop the sample",
        ),
    ],
)
def test_verdicts_that_cannot_be_scored(folder, content, line):
    write("verdicts.csv", content)
    fails(line, "score", "verdicts.csv", "--out", "out")
    assert listing(folder) == ["verdicts.csv"]


def test_a_row_keeps_its_number_when_groups_are_scored(folder):
    write("verdicts.csv", "sample_id,category,who\na,wrong,ann\nb,wrong,ben\nb,generic,ben\n")
    line = "verdicts.csv: row 3: sample 'b' has rollout '' twice; drop one, or number them in a column 'rollout'"
    fails(line, "score", "verdicts.csv", "--by", "who")


def test_names_score_does_not_know_and_outputs_that_cannot_be(folder):
    write("verdicts.csv", VERDICTS)
    Path("run").mkdir()
    fails("unknown weights 'mine': use one of released", "score", "verdicts.csv", "--weights", "mine")
    fails(
        "verdicts.csv: no column 'dataset' (found 'label', 'answer', 'category'); add it or rename one",
        "score",
        "verdicts.csv",
        "--by",
        "dataset",
    )
    fails("none.csv: no such file; check the path", "score", "none.csv")
    fails("run/verdicts.csv: no such file; check the path", "score", "run")
    result = call("score", "verdicts.csv", "--out", "verdicts.csv")
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("error: cannot write verdicts.csv/scores.") and result.stderr.endswith(
        "; choose a folder you may write to\n"
    )
    assert listing(folder) == ["run", "verdicts.csv"]
    write("run/verdicts.csv", VERDICTS)
    assert ok("score", "run") == ok("score", "verdicts.csv").replace("verdicts", "run/verdicts")


# --- evaluate ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(folder):
    "Three labelled pictures, and arguments that would evaluate them."
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Path("photos").mkdir()
    for name in ("a.jpg", "b.png", "c.jpg"):
        Image.fromarray(noise).save(Path("photos") / name)
    write("photos/labels.csv", "file,label\na.jpg,beagle\nb.png,boxer\nc.jpg,persian cat\n")
    return ["evaluate", "--model", "fieldguide-base", "--data", "photos", "--out", "run"]


def bomb() -> bytes:
    "A PNG of a few bytes whose header promises 2500 million pixels."
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


CORRUPT = "the image is corrupt, truncated or of another format; replace the file"


@pytest.mark.parametrize(
    "name, damage, line",
    [
        ("b.png", lambda data: b"", "the image is empty (0 bytes); replace the file"),
        ("b.png", lambda data: b"not a picture at all", CORRUPT),
        ("c.jpg", lambda data: data[: len(data) // 2], CORRUPT),
        ("b.png", lambda data: data[:200] + b"\xff" * 50 + data[250:], CORRUPT),
        ("b.png", lambda data: bomb(), "the image has more than 100,000,000 pixels; make it smaller"),
    ],
    ids=["empty", "text", "truncated", "corrupt", "bomb"],
)
def test_a_bad_picture_is_recorded_skipped_and_counted(photos, name, damage, line):
    path = Path("photos") / name
    path.write_bytes(damage(path.read_bytes()))
    told = ok(*photos)
    assert "1 unreadable images" in told and f"without an answer: photos/{name}: {line}" in told
    with open("run/samples.csv", newline="") as file:
        faults = {row["sample_id"]: row for row in csv.DictReader(file)}
    assert any(line in " ".join(row.values()) for row in faults.values())
    assert json.loads(Path("run/card.json").read_text())["counts"]["answers"] == 2


def test_no_readable_picture_is_an_error(photos):
    for name in ("a.jpg", "b.png", "c.jpg"):
        (Path("photos") / name).write_bytes(b"")
    result = call(*photos)
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_folders_that_cannot_be_evaluated(photos):
    result = call("evaluate", "--model", "fieldguide-base", "--data", "none", "--out", "run")
    assert (
        result.exit_code == 2
        and result.stderr.startswith(
            "error: no data set 'none' and no such folder: use a folder of images with labels.csv"
        )
        and result.stderr.count("\n") == 1
    )
    Path("photos/b.png").rename("photos/d.png")
    fails(
        "photos: 1 labelled but not there ('b.png') and 1 there but not labelled ('d.png'); make labels.csv and the "
        "folder agree",
        *photos,
    )
    write("photos/labels.csv", "file,label,dataset\na.jpg,beagle,pets\nd.png,boxer,unicorns\nc.jpg,persian cat,\n")
    fails(f"unknown data set 'unicorns': use one of {', '.join(available_trees())}", *photos)
    Path("photos/labels.csv").unlink()
    fails("photos: neither labels.csv nor the lists of a known data set in it; name the data set: NAME=photos", *photos)
    assert not Path("run").exists()


def test_other_things_evaluate_refuses(photos):
    fails(
        f"unknown prompt 'rude': use one of {', '.join(available('prompts'))}, or the path of a YAML file",
        *photos,
        "--prompt",
        "rude",
    )
    write("file", "")
    fails("cannot write file/run: Not a directory; choose a folder you may write to", *photos[:-1], "file/run")
    fails(
        "cannot write /proc/run: No such file or directory; choose a folder you may write to", *photos[:-1], "/proc/run"
    )
    assert not Path("run").exists()


def test_evaluate_without_the_extra(photos, folder):
    result = python(WITHOUT_TORCH, *photos, cwd=folder)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: this command needs the train extra: pip install 'speciarl[train]'\n"
    assert not Path("run").exists()


def test_a_model_folder_without_processor(photos, folder):
    write("model/config.json", "{}")
    write("model/tokenizer.json", "{}")
    result = python(START, "evaluate", "--model", "model", *photos[3:], cwd=folder)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: model: ") and result.stderr.count("\n") == 1
    assert "image processor (preprocessor_config.json)" in result.stderr and "save_pretrained" in result.stderr
    assert not Path("run").exists()


# --- train, base, reproduce -------------------------------------------------------------------------------------------


def test_recipes_that_cannot_be_trained(folder):
    fails_train = lambda line, *arguments: fails(line, "train", *arguments, "--out", "run")
    result = call("train", "smoke/none", "--out", "run")
    assert (
        result.exit_code == 2
        and result.stderr.startswith("error: unknown recipe 'smoke/none'; ")
        and result.stderr.count("\n") == 1
    )
    fails_train("--set 'steps': write it as key=value, for example steps=60", "smoke/speciarl", "--set", "steps")
    result = call("train", "smoke/speciarl", "--set", "stepps=60", "--out", "run")
    assert (
        result.exit_code == 2
        and result.stderr.startswith("error: speciarl.yaml: unknown key 'stepps'; it may have: ")
        and result.stderr.count("\n") == 1
    )
    write("run/card.json", "{}")
    fails_train("run/card.json exists; choose another --out", "smoke/speciarl")
    fails(
        "cannot write /proc/run: No such file or directory; choose a folder you may write to",
        "train",
        "smoke/speciarl",
        "--out",
        "/proc/run",
    )
    assert listing(folder) == ["run", "run/card.json"]


@pytest.mark.parametrize("command", [["train", "smoke/speciarl"], ["base"]])
def test_training_without_the_extra(folder, command):
    result = python(WITHOUT_TORCH, *command, "--out", "run", cwd=folder)
    assert (result.returncode, result.stderr) == (
        2,
        "error: this command needs the train extra: pip install 'speciarl[train]'\n",
    )
    assert listing(folder) == []


def test_base_refuses_a_folder_that_exists(folder):
    Path("base").mkdir()
    fails("base exists; choose another --out", "base", "--out", "base")


def test_two_cards_of_the_base_are_compared():
    packaged = {"sha256": "a", "scores": {"zero-shot S": 0.717, "zero-shot C": 0.877}}
    assert compare_cards({"sha256": "a"}, packaged) == "the weights are those of the packaged base, bit for bit"
    near = {"sha256": "b", "scores": {"zero-shot S": 0.74, "zero-shot C": 0.85}}
    assert compare_cards(near, packaged) == "other weights than the packaged base, every score within 0.05 of its card"
    far = {"sha256": "b", "scores": {"zero-shot S": 0.717, "zero-shot C": 0.8}}
    with pytest.raises(
        UserError,
        match=r"^the base trained here differs from its card: zero-shot C 0\.8 against 0\.877; compare the versions "
        r"in the two card\.json files$",
    ):
        compare_cards(far, packaged)


def test_reproduce_outside_a_checkout_says_how_to_get_one(folder):
    expected = (
        f"{folder} holds no paper notebooks; get them with: git clone https://github.com/speciarl/speciarl && "
        "cd speciarl && make reproduce"
    )
    fails(expected, "reproduce")
    fails(expected, "reproduce", "--plan")
    assert listing(folder) == []


@pytest.fixture
def checkout(folder, monkeypatch):
    "A miniature checkout with one notebook; the working folder is somewhere inside it."
    cell = {
        "cell_type": "code",
        "source": 'profile = "smoke"',
        "metadata": {"tags": ["parameters"]},
        "outputs": [],
        "execution_count": None,
        "id": "a",
    }
    write("nbs/paper/1_first.ipynb", json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    write("paper/manifest.yaml", "notebooks:\n  1_first:\n")
    write("paper/paper.md", "# Title\n")
    (folder / "src").mkdir()
    monkeypatch.chdir(folder / "src")
    return folder


def test_reproduce_finds_its_checkout_from_inside(checkout):
    before = listing(checkout)
    assert "1_first" in ok("reproduce", "--plan")
    assert listing(checkout) == before, "a plan writes nothing"


@pytest.mark.parametrize(
    "arguments, start",
    [(["--profile", "huge"], "unknown profile 'huge'"), (["--only", "9_none"], "unknown notebook '9_none'")],
)
def test_unknown_profile_and_notebook(checkout, arguments, start):
    before = listing(checkout)
    result = call("reproduce", *arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith(f"error: {start}")
    assert ("smoke" if "--profile" in arguments else "1_first") in result.stderr, "it names those there are"
    assert listing(checkout) == before


# --- doctor -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def declared(monkeypatch):
    "Set what the installed package declares as its requirements."

    def declare(*requirements: str, extras=("train", "paper")):
        monkeypatch.setattr(doctor.metadata, "requires", lambda name: list(requirements))
        monkeypatch.setattr(
            doctor.metadata,
            "metadata",
            lambda name: type("Metadata", (), {"get_all": lambda self, key: list(extras)})(),
        )

    return declare


def test_doctor_when_all_is_well(folder, declared):
    declared("numpy>=2", 'papermill>=2; extra == "paper"', 'torch>=2; extra == "train"')
    output = ok("doctor")
    assert [line.split()[0] for line in output.splitlines()[:6]] == ["ok"] * 6
    assert (
        "ok       base          numpy " in output
        and "ok       trees         aircraft (" in output
        and "ok       base policy   fieldguide-base: " in output
        and "ok       base policy   photo-base: " in output
    )
    assert f"ok       folder        {folder} can be written" in output
    assert output.endswith("ready to run: judge, score, evaluate, train, reproduce\n")


def test_a_missing_extra_is_a_choice(folder, declared):
    declared(
        "numpy>=2", 'papermill>=2; extra == "paper"', 'warp-drive>=1; extra == "train"', 'numpy>=99; extra == "train"'
    )
    output = ok("doctor")
    assert "missing  train         warp-drive>=1, numpy>=99; mend it with: pip install 'speciarl[train]'\n" in output
    assert output.endswith("ready to run: judge, score\n")


def test_a_broken_base_install_is_an_error(folder, declared, monkeypatch):
    declared("numpy>=99")
    result = call("doctor")
    assert result.exit_code == 1
    assert "broken   base          numpy>=99; mend it with: pip install --upgrade speciarl\n" in result.stdout
    assert result.stderr == "error: the base install is broken; see the lines above that begin with broken\n"


def test_damaged_package_data_is_an_error(folder, declared, monkeypatch, tmp_path):
    import speciarl.core.config

    declared("numpy>=2")
    monkeypatch.setattr(speciarl.core.config, "ASSETS", tmp_path)
    monkeypatch.setitem(speciarl.core.config.PACKAGED, "fieldguide-base", tmp_path / "fieldguide_base")
    write("fieldguide_base/card.json", '{"sha256": "0", "bytes": 3}')
    write("fieldguide_base/model.safetensors", "abc")
    result = call("doctor")
    assert result.exit_code == 1
    assert (
        f"broken   base policy   {tmp_path}/fieldguide_base is incomplete or not what its card says; mend it with: "
        "pip install --force-reinstall --no-deps speciarl\n" in result.stdout
    )


def test_doctor_without_torch_or_programs(folder, declared, monkeypatch):
    declared("numpy>=2")
    version_of = doctor.version_of
    monkeypatch.setattr(doctor, "version_of", lambda name: None if name == "torch" else version_of(name))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.chdir("/proc")
    output = ok("doctor")
    assert (
        "missing  torch         evaluate, train and reproduce need it; mend it with: pip install 'speciarl[train]'\n"
        in output
    )
    assert "missing  git           needed for checkouts; mend it with: apt install git\n" in output
    assert "missing  folder        cannot write /proc: " in output


def test_doctor_when_the_package_is_not_installed(folder, monkeypatch):
    def absent(name):
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", absent)
    result = call("doctor")
    assert result.exit_code == 1
    assert (
        "broken   base          speciarl is on the path but not installed; mend it with: pip install -e .\n"
        in result.stdout
    )


# --- fields of a request ----------------------------------------------------------------------------------------------


def test_fields_of_a_request_are_checked_before_anything_is_asked(photos):
    line = "--request temperature=warm: temperature is a number of at least 0"
    fails(line, *photos, "--engine", "openai", "--base-url", "http://127.0.0.1:9/v1", "--request", "temperature=warm")
    fails("--request is for a server: use it with --engine openai", *photos, "--request", "top_k=1")
