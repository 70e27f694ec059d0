"A tree is checked, shown and tried: what would cost verdicts is told, with an exit code."

from pathlib import Path

import pytest
from command_line import call, ok, refused
from policy_server import policy_server  # noqa: F401 - a fixture

from speciarl.core.files import read_csv, read_json, read_jsonl, write_csv
from speciarl.data.checking import check_labels, check_structure, near_duplicates, outline_page
from speciarl.data.fieldguide import plates
from speciarl.data.trees import available_trees, load_tree, parse_tree

HEAD = "@dataset m\n@title Mushrooms\n@domain mushroom\n"
GOOD = (
    HEAD
    + "mushroom\n  amanita\n    * fly agaric | toadstool\n    * death cap\n  boletus\n    * cep\n    * bay bolete\n"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my.tree").write_text(GOOD)
    return tmp_path


def write_photos():
    "Three pictures in photos, which are all said to show a cep."
    Path("photos").mkdir()
    for number, plate in enumerate(plates("birds", "test", 3)):
        plate.image.save(f"photos/{number}.png")
    write_csv("photos/labels.csv", ["file", "label"], [[f"{number}.png", "cep"] for number in range(3)])


def ends_badly(*arguments):
    result = call(*arguments)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1, result.output
    return result.output


def test_a_sound_tree_is_said_to_be_one(folder):
    Path("labels.csv").write_text("label\nfly agaric\ndeath cap\nCep\nbay bolete\ntoadstool\n")
    assert ok("tree", "check", "my.tree", "--labels", "labels.csv").splitlines() == [
        "my.tree: 4 classes, 3 other lines, domain 'mushroom'",
        "nothing is wrong",
    ]


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "the header @dataset is missing"),
        (HEAD + "mushroom\n", "no class"),
        (GOOD + "  russula\n    * cep\n", "the name 'cep' is already used in bad.tree:9"),
        (HEAD + "mushroom\n  a < b\n    * x\n  b < a\n    * y\n", "lead in a circle"),
        (HEAD + "mushroom\n  * cep\n  * morel\n", "classes without a group between them and the domain"),
        (HEAD + "fungus\n  a\n    * cep\n    * morel\n", "no line has the word of @domain"),
    ],
)
def test_what_is_wrong_is_told_with_exit_code_1(folder, text, said):
    Path("bad.tree").write_text(text)
    assert said in ends_badly("tree", "check", "bad.tree")


def test_a_tree_that_is_not_there_is_no_sound_tree(folder):
    assert "no label tree 'nowhere.tree'" in ends_badly("tree", "check", "nowhere.tree")


def test_labels_that_are_not_there_are_named_with_what_comes_near(folder):
    Path("mine.csv").write_text("file,Klasse\na,cep\nb,deth cap\nc,truffle\nd,amanita\n")
    assert "no column 'label'" in refused("tree", "check", "my.tree", "--labels", "mine.csv")
    told = ends_badly("tree", "check", "my.tree", "--labels", "mine.csv", "--label-column", "Klasse")
    for part in ("no verdict (2)", "deth cap (near: death cap)", "    truffle\n", "groups and no classes (1)"):
        assert part in told
    assert "classes that no label names (3)" in told


def test_a_class_alone_and_near_duplicates_are_only_to_be_looked_at():
    tree = parse_tree(
        HEAD + "mushroom\n  a\n    * chanterelle\n  b\n    * chantarelle\n    * ink cap\n    * inkcap\n", "t"
    )
    assert set(near_duplicates(tree)) == {("chantarelle", "chanterelle"), ("ink cap", "inkcap")}
    assert [(finding.wrong, len(finding.names)) for finding in check_structure(tree)] == [(False, 1), (False, 2)]
    assert check_labels(tree, tree.classes()) == []


@pytest.mark.parametrize("name", available_trees())
def test_no_packaged_tree_is_wrong_against_its_own_labels(name):
    assert not any(finding.wrong for finding in check_labels(load_tree(name), load_tree(name).classes()))


def test_a_tree_is_shown_as_text_and_as_a_page(folder):
    assert "\n    * fly agaric (toadstool)\n" in ok("tree", "show", "my.tree")
    ok("tree", "show", "my.tree", "--html", "my.html")
    page = Path("my.html").read_text()
    assert page.count("<details") == page.count("</details>") == 3 and page.count("<div") == page.count("</div>")
    assert "my.html exists" in refused("tree", "show", "my.tree", "--html", "my.html")


def test_names_are_no_markup():
    tree = parse_tree(GOOD.replace("Mushrooms", "A & B").replace("death cap", "death & cap"), "t")
    assert "<b>death &amp; cap</b>" in outline_page(tree) and "<title>A &amp; B</title>" in outline_page(tree)


def test_the_repr_of_a_tree_is_short_and_a_notebook_shows_it():
    tree = load_tree("cub200")
    assert repr(tree).startswith("LabelTree('cub200': 200 classes") and len(repr(tree)) < 100
    assert tree._repr_html_().count("<b>") == 200


def test_an_answer_is_tried(folder):
    assert ok("tree", "try", "my.tree", "fly agaric", "toadstool").startswith("specific (tree: ")
    assert ok("tree", "try", "my.tree", "fly agaric", "amanita").startswith("less specific (tree: ")
    assert ok("tree", "try", "my.tree", "fly agaric", "mushroom").startswith("generic (tree: ")
    assert ok("tree", "try", "my.tree", "fly agaric", "cep").startswith("wrong (tree: ")
    assert ok("tree", "try", "my.tree", "fly agaric", "zeppelin bolt").startswith("no verdict (undecided: ")
    assert "speciarl tree from-table TAXONOMY.csv" in ends_badly("tree", "try", "my.tree", "morel", "cep")


def test_evaluate_takes_a_tree_or_finds_it_beside_the_data(folder, policy_server):
    write_photos()
    asked = ("evaluate", "--engine", "openai", "--base-url", policy_server.url, "--model", "policy", "--data", "photos")
    assert "speciarl tree from-table" in ends_badly(*asked, "--out", "unknown")
    assert refused(*asked, "--out", "unknown", "--tree", "photos/labels.csv").endswith(
        "photos/labels.csv is a table; make a tree of it: speciarl tree from-table photos/labels.csv --out MY.tree"
    )
    ok(*asked, "--tree", "my.tree", "--out", "given")
    Path("my.tree").rename("photos/labels.tree")
    assert "labels are judged by photos/labels.tree" in call(*asked, "--out", "beside").stderr
    rows = [Path(run, "verdicts.csv").read_text() for run in ("given", "beside")]
    assert rows[0] == rows[1] and "unknown label" not in rows[0]
    identities = {read_json(f"{run}/card.json")["settings"]["judge"] for run in ("given", "beside")}
    assert len(identities) == 1, "the card keeps the judge's identity, which hashes the tree"
    assert read_json("given/card.json")["trees"] == {"m": load_tree("photos/labels.tree").digest}


def test_a_tree_of_ones_own_does_not_take_the_name_of_a_packaged_one(folder):
    Path("cub.tree").write_text(GOOD.replace("@dataset m\n", "@dataset cub200\n"))
    told = refused("evaluate", "--model", "x", "--data", "photos", "--tree", "cub.tree", "--out", "run")
    assert told.endswith("a packaged tree is called @dataset cub200; give it another name")


def test_an_own_tree_decides_alone_unless_the_world_is_asked(folder):
    answers = ["cep", "cat", "dessert", "Boeing 747"]
    rows = [["fly agaric", answer, name] for answer in answers for name in ("", "m")]
    write_csv("pairs.csv", ["label", "answer", "dataset"], rows)
    told = ok("judge", "pairs.csv", "--tree", "my.tree", "--out", "alone.csv")
    assert "most frequent undecided answers:" in told and "add them to my.tree" in told
    assert told.count("(for fly agaric)") == 3
    ok("judge", "pairs.csv", "--tree", "my.tree", "--world", "--out", "world.csv")
    ok("judge", "pairs.csv", "--dataset", "my.tree", "--out", "named.csv")
    columns = {name: [row["category"] for row in read_csv(f"{name}.csv")[0]] for name in ("alone", "world", "named")}
    assert columns["alone"] == columns["named"] == ["wrong"] * 2 + [""] * 6
    assert columns["world"] == ["wrong"] * 8
    assert read_json("alone.card.json")["judge"]["trees"] == {"m": load_tree("my.tree").digest}
    assert ok("tree", "try", "my.tree", "fly agaric", "cat", "--world").startswith("wrong")
    assert ok("tree", "try", "my.tree", "fly agaric", "cat").startswith("no verdict (undecided")


def test_a_packaged_tree_is_extended(folder):
    text = "@dataset canteen\n@extends food101\nramen | tonkotsu\nsoup\n  * khao soi | curry noodles\n"
    Path("canteen.tree").write_text(text)
    assert "101 classes" not in ok("tree", "check", "canteen.tree") and len(load_tree("canteen.tree").classes()) == 102
    assert ok("tree", "try", "canteen.tree", "ramen", "tonkotsu").startswith("specific")
    assert ok("tree", "try", "canteen.tree", "khao soi", "soup").startswith("less specific")
    assert ok("tree", "try", "canteen.tree", "khao soi", "samoyed").startswith("wrong")
    for line, said in [
        ("khao soi\n", "'khao soi' is new; write it below a line of the extended tree"),
        ("ramen | pho\n", "the name 'pho' is already used in food101.tree"),
        ("* soup\n", "'soup' is food101.tree"),
        ("ramen\n  pho\n", "'pho' is food101.tree"),
    ]:
        Path("bad.tree").write_text("@dataset bad\n@extends food101\n" + line)
        assert said in ends_badly("tree", "check", "bad.tree")
    Path("bad.tree").write_text("@dataset bad\n@extends lunch\nramen\n")
    assert "no packaged tree 'lunch'; use one of" in ends_badly("tree", "check", "bad.tree")


def test_questions_are_asked_about_a_tree_of_ones_own(folder, policy_server):
    write_photos()
    asked = ("closed", "--engine", "openai", "--base-url", policy_server.url, "--model", "policy", "--data", "photos")
    assert "images without a data set" in refused(*asked, "--out", "unknown")
    ok(*asked, "--tree", "my.tree", "--out", "given")
    rows = read_jsonl("given/answers.jsonl")
    assert [sorted(row["options"]) for row in rows] == [["bay bolete", "cep", "death cap", "fly agaric"]] * 3
    Path("my.tree").rename("photos/labels.tree")
    ok(*asked, "--options", "2", "--out", "beside")
    assert [sorted(row["options"]) for row in read_jsonl("beside/answers.jsonl")] == [["bay bolete", "cep"]] * 3
    card = read_json("beside/closed.card.json")
    assert card["settings"]["trees"] == {"m": load_tree("photos/labels.tree").digest}
    many = call(*asked, "--options", "9", "--out", "many")
    assert many.exit_code == 2 and "m: there are 3 other classes for 'cep', not the 8" in many.stderr
