"A label tree made from a table: as people and databases keep names, from the table to a judged answer."

import csv
from pathlib import Path

import pytest
from command_line import call, ok, refused

from speciarl.core.scale import UserError
from speciarl.data.making import split_car, split_path, tree_from_table, without_author

OAKS = [name.split(" ", 1) for name in (
    "robur English oak", "petraea sessile oak", "rubra northern red oak", "alba white oak", "ilex holm oak",
    "suber cork oak", "cerris Turkey oak", "pubescens downy oak", "coccinea scarlet oak", "palustris pin oak",
    "velutina black oak", "macrocarpa bur oak", "virginiana southern live oak", "agrifolia coast live oak",
    "lobata valley oak", "phellos willow oak", "nigra water oak", "falcata southern red oak", "stellata post oak",
    "bicolor swamp white oak", "muehlenbergii chinkapin oak", "michauxii swamp chestnut oak", "acutissima sawtooth oak",
    "coccifera kermes oak", "pyrenaica Pyrenean oak", "frainetto Hungarian oak",
)]  # fmt: skip
BEECHES = [("sylvatica", "European beech"), ("grandifolia", "American beech"), ("crenata", "Siebold's beech")]
TABLE = "family,genus,species,common_name\n" + "".join(
    [f"Fagaceae,Quercus,{species},{name}\n" for species, name in OAKS]
    + [f"Fagaceae,Fagus,{species},{name}\n" for species, name in BEECHES]
    + ["Fagaceae,Castanea,sativa,sweet chestnut; Spanish chestnut\n"]
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("taxonomy.csv").write_text(TABLE)
    return tmp_path


def made(*rows, **how):
    return tree_from_table(list(rows), "mine", **{"domain": "thing"} | how)


def judged(pairs, tree="my.tree"):
    Path("pairs.csv").write_text("label,answer\n" + "".join(f"{label},{answer}\n" for label, answer in pairs))
    ok("judge", "pairs.csv", "--dataset", tree, "--out", "verdicts.csv", "--force")
    with open("verdicts.csv", newline="") as file:
        return [row["category"] for row in csv.DictReader(file)]


def test_thirty_species_from_a_table_to_judged_answers(folder):
    told = ok("tree", "from-table", "taxonomy.csv", "--out", "my.tree")
    assert "30 classes in 4 groups, domain 'Fagaceae'" in told and "speciarl judge" in told
    pairs = [("Quercus robur", "English oak"), ("Quercus robur", "Quercus"), ("cork oak", "Quercus suber")]
    pairs += [("Quercus robur", "Fagaceae"), ("Quercus robur", "sweet chestnut")]
    assert judged(pairs) == ["specific", "less specific", "specific", "generic", "wrong"]


def test_the_same_table_in_another_folder_is_the_same_tree(tmp_path):
    "Run cards keep the digest of a tree; it must not tell where a colleague keeps the table."
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "taxonomy.csv").write_text(TABLE)
        table, tree = tmp_path / name / "taxonomy.csv", tmp_path / name / "my.tree"
        ok("tree", "from-table", table, "--domain", "tree", "--out", tree)
    here, there = ((tmp_path / name / "my.tree").read_text() for name in ("here", "there"))
    assert here == there and "30 classes from taxonomy.csv" in here


def test_gbif_exports_lose_their_authors_and_their_keys_and_count_once():
    row = {
        "gbifID": "1",
        "kingdom": "Fungi",
        "phylum": "Basidiomycota",
        "class": "Agaricomycetes",
        "order": "Boletales",
    }
    row |= {
        "family": "Boletaceae",
        "genus": "Boletus",
        "scientificName": "Boletus edulis Bull.",
        "vernacularName": "cep",
    }
    other = row | {
        "genus": "Suillus",
        "family": "",
        "scientificName": "Suillus luteus (L.) Roussel",
        "vernacularName": "",
    }
    found = made(row, row | {"gbifID": "2"}, other, domain=None)
    assert found.tree.classes() == ["Boletus edulis", "Suillus luteus"] and found.tree.domain == "Boletales"
    assert found.tree.find("cep") == found.tree.find("Boletus edulis")
    assert found.notes[-1] == "columns left out: gbifID"


def test_inaturalist_exports_are_known_by_their_header():
    def row(species, common):
        ranks = {"kingdom": "Plantae", "family": "Fagaceae", "genus": "Quercus", "species": species}
        taxa = {f"taxon_{rank}_name": name for rank, name in ranks.items()}
        return {"id": "7", "observed_on": "2024-05-01", "scientific_name": species, "common_name": common, **taxa}

    found = made(row("Quercus robur", "English oak"), row("Quercus ilex", "holm oak"), domain=None)
    assert found.tree.classes() == ["Quercus robur", "Quercus ilex"] and found.tree.domain == "Quercus"
    assert found.tree.find("holm oak") == found.tree.find("Quercus ilex")


def test_labels_may_be_what_people_say():
    rows = [{"family": "F", "genus": "Quercus", "species": "robur", "name": "English oak"}]
    rows += [{"family": "F", "genus": "Fagus", "species": "sylvatica", "name": "beech"}]
    found = made(*rows, label_column="name")
    assert found.tree.classes() == ["English oak", "beech"]
    assert found.tree.find("Quercus robur") == found.tree.find("English oak"), "the species is another name of it"


def test_columns_of_ones_own_stand_from_broad_to_fine_and_may_be_named():
    rows = [{"colour": "red", "n": 3, "kind": "fruit", "class": "apple", "synonyms": "pippin | eating apple"}]
    rows += [{"colour": "red", "n": 4, "kind": "fruit", "class": "cherry", "synonyms": ""}]
    assert "from broad to fine: colour > kind > class" in made(*rows).notes
    found = made(*rows, columns=["kind", "class"])
    assert found.tree.nodes[0].names == ("fruit", "thing") and found.tree.find("eating apple") == found.tree.find(
        "apple"
    )
    with pytest.raises(UserError, match="no column 'sort'; the columns are colour, n, kind"):
        made(*rows, columns=["sort"])


def test_paths_and_cars():
    assert split_path("/animal/dog/samoyed/") == ("animal", "dog", "samoyed")
    assert split_path("animal > dog") == ("animal", "dog")
    assert made({"x": "a > b > c"}, {"x": "a > b > d"}, domain=None).tree.domain == "b"
    found = made({"x": "animal/dog"}, {"x": "animal/dog/pug"}, {"x": "animal/cat/siamese"}, domain=None)
    assert found.tree.classes() == ["pug", "siamese"] and "groups and no classes" in found.notes[-1]
    assert split_car("AM General Hummer SUV 2000")[0] == (
        "AM General",
        "AM General Hummer",
        "AM General Hummer SUV 2000",
    )
    assert split_car("Ford F-450 Super Duty Crew Cab 2012")[0][1] == "Ford F-450 Super Duty"


def test_a_name_without_an_author_stays():
    for name in ("Amanita muscaria", "fly agaric", "Quercus × hispanica"):
        assert without_author(name) == name


def test_marks_of_the_tree_file_do_no_harm():
    found = made({"a": "g|1", "b": "* x [old] # 2"}, {"a": "g|1", "b": "@y < z"})
    assert found.tree.classes() == ["x old 2", "y z"]


def test_a_synonym_of_two_classes_names_neither():
    found = made({"g": "oak", "n": "red", "synonym": "tall"}, {"g": "oak", "n": "white", "synonym": "tall"})
    assert found.tree.find("tall") == () and "they name something else too: tall" in found.notes[-1]


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "the file is empty"),
        ("family,genus\n", "a header but no rows"),
        ("id,url\n1,https://a.b\n", "no column holds names"),
        ("name\noak\nbeech\n", "nothing stands above them; add a column of broader names"),
        ("group,name\na,x\nb,x\n", "'x' stands below 'a' (line 2) and 'b' (line 3)"),
        ("p,q,name\na,b,x\nb,a,y\n", "the groups lead in a circle"),
        ("p,name\na,x\nb,y\n", "no group holds all classes; say with --domain"),
        ("p,name\na,\nb,\n", "nothing stands above them"),
        ("p,p\na,b\n", "appears twice in the header"),
    ],
)
def test_what_makes_no_tree_is_one_line_and_leaves_nothing(folder, text, said):
    Path("bad.csv").write_text(text)
    assert said in refused("tree", "from-table", "bad.csv", "--out", "bad.tree")
    assert sorted(path.name for path in folder.iterdir()) == ["bad.csv", "taxonomy.csv"]


def test_nothing_is_overwritten_by_accident(folder):
    Path("my.tree").write_text("mine")
    assert "my.tree exists" in refused("tree", "from-table", "taxonomy.csv", "--out", "my.tree")
    assert Path("my.tree").read_text() == "mine"
    assert call("tree", "from-table", "taxonomy.csv", "--out", "my.tree", "--force").exit_code == 0


def test_a_workbook_and_a_table_with_tabs_are_read_as_well(folder):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for line in TABLE.splitlines():
        book.active.append(line.split(","))
    book.save("taxonomy.xlsx")
    Path("taxonomy.tsv").write_text(TABLE.replace(",", "\t"))
    for name in ("taxonomy.csv", "taxonomy.xlsx", "taxonomy.tsv"):
        ok("tree", "from-table", name, "--out", f"{name}.tree", "--dataset", "trees", "--title", "Trees")
    assert len({Path(f"taxonomy.{kind}.tree").read_text() for kind in ("csv", "xlsx", "tsv")}) == 1
