"""Label trees: every fault of a file is said with its line, names are found in any spelling, and the near rule
holds."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusal import message

import speciarl.data.trees
from speciarl.core.names import name_key, near_names, singulars
from speciarl.core.scale import Category, UserError
from speciarl.data.trees import available_trees, load_tree, load_trees, mentions, near_ancestors, parse_tree, relation

HEAD = "@dataset toy\n@title Toy\n@domain bird\n"
TREE = parse_tree(
    HEAD
    + """
animal
  bird | avian
    warbler | wood warbler
      * golden-winged warbler | vermivora chrysoptera
        northern golden-winged warbler
      * blue-winged warbler
    gull | gulls
  dog
    spitz
      * samoyed
aircraft
  ~ commercial airliner
    boeing
      boeing 707
        * 707-320
""",
    "toy.tree",
)


def names(tree, indices) -> list[str]:
    return [tree.nodes[i].name for i in indices]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", "toy.tree:1: the header @dataset is missing; begin with @dataset NAME, @title TEXT and @domain NAME"),
        (
            "@dataset toy\n@title Toy\n* robin\n",
            "toy.tree:1: the header @domain is missing; begin with @dataset NAME, @title TEXT and @domain NAME",
        ),
        (HEAD, "toy.tree:1: no class; mark each official label with '* '"),
        (HEAD + "bird\n  robin\n", "toy.tree:1: no class; mark each official label with '* '"),
        (HEAD + "@domain fish\n", "toy.tree:4: a second @domain; keep one"),
        (
            HEAD + "@colour red\n",
            "toy.tree:4: unreadable header '@colour red'; the headers are @dataset NAME, @title TEXT and @domain NAME",
        ),
        (
            "@dataset \n",
            "toy.tree:1: unreadable header '@dataset'; the headers are @dataset NAME, @title TEXT and @domain NAME",
        ),
        (HEAD + "bird\n\t* robin\n", "toy.tree:5: a tab; indent with two spaces per level"),
        (HEAD + "bird\n  * red\trobin\n", "toy.tree:5: a tab; indent with two spaces per level"),
        (HEAD + "bird\n   * robin\n", "toy.tree:5: indented by 3 spaces; indent with two spaces per level"),
        (
            HEAD + "bird\n    * robin\n",
            "toy.tree:5: indented 2 levels, but the line above allows at most 1; go down one level at a time",
        ),
        (
            HEAD + "  * robin\n",
            "toy.tree:4: indented 1 levels, but the line above allows at most 0; go down one level at a time",
        ),
        (HEAD + "# comment\n\n* robin | | redbreast\n", "toy.tree:6: an empty name; write: name | synonym | synonym"),
        (HEAD + "* robin | ?!\n", "toy.tree:4: an empty name; write: name | synonym | synonym"),
        (HEAD + "*\n", "toy.tree:4: an empty name; write: name | synonym | synonym"),
        (HEAD + "*robin\n", "toy.tree:4: unreadable mark; write one mark, a space, then the name: * samoyed"),
        (HEAD + "~ * robin\n", "toy.tree:4: unreadable mark; write one mark, a space, then the name: * samoyed"),
        (
            HEAD + "* dog\n  spitz\n    * samoyed\n",
            "toy.tree:6: class 'samoyed' stands below class 'dog' (line 4); only one * is allowed on a path",
        ),
        (
            HEAD + "* dog\n* cat | Dog\n",
            "toy.tree:5: the name 'Dog' is already used in toy.tree:4; a name may stand for one thing only",
        ),
        (
            HEAD + "bird\n  * robin < songster\n",
            "toy.tree:5: no line is called 'songster'; add a line for this facet below the domain's own",
        ),
        (
            HEAD + "bird\n  * wren\n    house wren\n  * robin < house wren\n",
            "toy.tree:7: the facet 'house wren' stands below a class (line 6); a facet is a class or a kind that "
            "several classes may share",
        ),
        (
            HEAD + "bird\n  * wren < robin\n  * robin < wren\n",
            "toy.tree:5: the facets of 'wren' lead in a circle; delete one of them",
        ),
        (
            HEAD + "a < b\nb < a\n* robin < a\n",  # the first line of the file is in the circle
            "toy.tree:4: the facets of 'a' lead in a circle; delete one of them",
        ),
        (HEAD + "bird\n  * robin < bird\n", "toy.tree:5: 'bird' stands above 'robin' anyway; delete the facet"),
        (
            HEAD + "bird\n  a < b\n  b < a\n  * robin < a\n",
            "toy.tree:5: the facets of 'a' lead in a circle; delete one of them",
        ),
        (
            HEAD + "bird\n  a < b\n    b\n  * robin\n",
            "toy.tree:5: the facets of 'a' lead in a circle; delete one of them",
        ),
        (HEAD + "* robin <\n", "toy.tree:4: an empty name; write: * samoyed < sledge dog, working dog"),
        (HEAD + "a\n* robin < a, , a\n", "toy.tree:5: an empty name; write: * samoyed < sledge dog, working dog"),
        (
            HEAD + "a\nb\n* robin < a < b\n",
            "toy.tree:6: unreadable <; write one, with spaces, before the facets: * samoyed < sledge dog, working dog",
        ),
        (
            HEAD + "* robin<a\n",
            "toy.tree:4: unreadable <; write one, with spaces, before the facets: * samoyed < sledge dog, working dog",
        ),
        (
            HEAD + "bird [seen]\n  * robin\n",
            "toy.tree:4: [seen] on a line that is no class; only a line with '* ' has a split",
        ),
        (
            HEAD + "* robin [train]\n",
            "toy.tree:4: unreadable brackets; the only ones are [seen] or [unseen] at the end of a class line",
        ),
        (
            HEAD + "* robin [seen] < bird\n",
            "toy.tree:4: unreadable brackets; the only ones are [seen] or [unseen] at the end of a class line",
        ),
        (
            HEAD + "* robin[seen]\n",
            "toy.tree:4: unreadable brackets; the only ones are [seen] or [unseen] at the end of a class line",
        ),
        (
            HEAD + "* sea-gull\n* Sea Gull\n",
            "toy.tree:5: the name 'Sea Gull' is already used in toy.tree:4; a name may stand for one thing only",
        ),
    ],
)
def test_faults_name_the_line_and_the_remedy(text, expected):
    assert message(parse_tree, text, "toy.tree") == expected


def test_a_file_is_read_whatever_its_line_ends_comments_and_spelling_variants():
    text = HEAD + "bird  # a group\n\n  # between\n  * sea-gull | sea gull | seagull\n"
    tree = parse_tree(text, "toy.tree")
    assert tree.nodes == parse_tree(text.replace("\n", "\r\n"), "toy.tree").nodes
    assert (tree.dataset, tree.title, tree.domain, tree.classes()) == ("toy", "Toy", "bird", ["sea-gull"])
    assert [(node.name, node.line, node.depth, node.parent) for node in tree.nodes] == [
        ("bird", 4, 0, None),
        ("sea-gull", 7, 1, 0),
    ]


def test_the_digest_changes_with_every_byte():
    text = HEAD + "* robin\n"
    assert parse_tree(text, "a").digest == parse_tree(text, "b").digest != parse_tree(text + "#", "a").digest


@given(st.text(alphabet="*~ |#@<[]\n\tab,", max_size=60))
@settings(deadline=None)
def test_any_text_is_a_tree_or_one_line_of_complaint(text):
    try:
        tree = parse_tree(HEAD + text, "toy.tree")
    except UserError as error:
        assert str(error).startswith("toy.tree:") and "\n" not in str(error)
    else:
        for i, node in enumerate(tree.nodes):
            assert all(tree.find(name) == (i,) for name in (node.name, *node.synonyms))
            assert all(i in tree.descendants(j) for j in tree.ancestors(i))


@pytest.mark.parametrize(
    "text",
    [
        "Golden-winged Warbler",
        "golden winged warblers.",
        "GOLDEN–WINGED WARBLER",
        "goldenwinged warbler",
        "Vermivora chrysoptera",
    ],
)
def test_spellings_of_one_name_are_one_node(text):
    assert names(TREE, TREE.find(text)) == ["golden-winged warbler"]


@pytest.mark.parametrize("text", ["", "?!", "corgi", "golden-winged", "wing", "707-3200", "golden warbler"])
def test_what_is_no_name_is_not_found(text):
    assert TREE.find(text) == ()


def test_plurals_undo_english_endings_only():
    assert "wolf" in singulars("grey wolves") or "grey wolf" in singulars("grey wolves")
    assert "butterfly" in singulars("butterflies") and "finch" in singulars("finches")
    assert singulars("bass") == singulars("gls") == singulars("carrera 4s") == singulars("warbler") == []


def test_accents_are_ignored_and_keys_are_stable():
    assert name_key("Crème-Brûlée!") == "creme brulee" == name_key(name_key("Crème-Brûlée!"))


def test_a_name_as_written_wins_and_a_shared_derived_spelling_is_ambiguous():
    tree = parse_tree(HEAD + "* catbird\n* cat bird house | cat birds\n* sea gull\n* seagulls\n", "toy.tree")
    assert names(tree, tree.find("catbird")) == ["catbird"] and names(tree, tree.find("cat birds")) == [
        "cat bird house"
    ]
    assert names(tree, tree.find("seagull")) == ["sea gull", "seagulls"]


def test_facets_and_splits():
    tree = parse_tree(
        HEAD
        + """
animal
  bird
    seabird < swimmer
    swimmer
    flier
    gull | gulls < seabird
      * herring gull | larus argentatus < flier [seen]
        smithsonian gull
      * ivory gull [unseen]
    * robin
""",
        "toy.tree",
    )
    label = tree.find("herring gull")[0]
    assert [tree.nodes[i].split for i in (label, tree.find("ivory gull")[0], tree.find("robin")[0])] == [
        "seen",
        "unseen",
        "",
    ]
    assert tree.nodes[label].facets == ("flier",) and tree.nodes[label].synonyms == ("larus argentatus",)
    assert set(names(tree, tree.above(label))) == {"gull", "bird", "animal", "seabird", "swimmer", "flier"}
    assert set(names(tree, tree.above(tree.find("smithsonian gull")[0]))) == {
        "herring gull",
        "gull",
        "bird",
        "animal",
        "seabird",
        "swimmer",
        "flier",
    }
    found = {
        answer: relation(tree, label, tree.find(answer)[0]).wire
        for answer in ("gull", "seabird", "swimmer", "flier", "bird", "robin", "smithsonian gull")
    }
    assert found == {
        "gull": "less specific",
        "seabird": "generic",
        "swimmer": "generic",
        "flier": "generic",
        "bird": "generic",
        "robin": "wrong",
        "smithsonian gull": "more specific",
    }
    assert (
        relation(tree, tree.find("ivory gull")[0], tree.find("flier")[0])
        is relation(tree, tree.find("robin")[0], tree.find("seabird")[0])
        is Category.WRONG
    )
    assert (
        relation(tree, tree.find("robin")[0], tree.find("bird")[0]) is Category.GENERIC
    )  # the domain's own node is never near


def test_technical_groups_cost_no_step():
    tree = parse_tree(
        HEAD
        + """
bird
  songbird
    ~ oscine
      warbler
        ~ vermivora
          ~ chrysoptera group
            * golden-winged warbler
  ~ ratite
    * ostrich
""",
        "toy.tree",
    )
    [label], [ostrich] = tree.find("golden-winged warbler"), tree.find("ostrich")
    assert {tree.nodes[j].name: relation(tree, label, j).wire for j in tree.ancestors(label)} == {
        "chrysoptera group": "less specific",
        "vermivora": "less specific",
        "warbler": "less specific",
        "oscine": "less specific",
        "songbird": "generic",
        "bird": "generic",
    }
    assert names(tree, near_ancestors(tree, ostrich)) == ["ratite"]


@pytest.mark.parametrize(
    "domain, expected",
    [
        ("dog", Category.GENERIC),
        ("canine", Category.GENERIC),
        ("animal", Category.LESS_SPECIFIC),
        ("pet", Category.LESS_SPECIFIC),
    ],
)
def test_the_domains_own_node_is_generic_however_close(domain, expected):
    tree = parse_tree(
        f"@dataset toy\n@title Toy\n@domain {domain}\nanimal\n  dog | canine\n    * samoyed\n", "toy.tree"
    )
    assert relation(tree, 2, 1) is expected and relation(tree, 2, 0) is Category.GENERIC


def test_possessives_british_spelling_and_parted_digits_are_one_name():
    tree = parse_tree(HEAD + "* Brewer Blackbird\n* Heermann's gull\n* gray catbird\n* MD-80\n", "toy.tree")
    found = [
        names(tree, tree.find(text))
        for text in ("Brewer's blackbird", "Brewer’s Blackbirds", "Heermann gull", "grey catbird", "MD80", "md 80")
    ]
    assert found == [["Brewer Blackbird"]] * 2 + [["Heermann's gull"], ["gray catbird"]] + [["MD-80"]] * 2


def test_up_down_and_sideways():
    [label] = TREE.find("golden-winged warbler")
    assert names(TREE, TREE.ancestors(label)) == ["warbler", "bird", "animal"]
    assert (
        names(TREE, TREE.children(label)) == names(TREE, TREE.descendants(label)) == ["northern golden-winged warbler"]
    )
    assert names(TREE, TREE.siblings(label)) == ["blue-winged warbler"]
    assert names(TREE, TREE.children(TREE.find("animal")[0])) == ["bird", "dog"]
    assert names(TREE, TREE.siblings(TREE.find("animal")[0])) == ["aircraft"]
    assert TREE.parent(TREE.find("animal")[0]) is None and TREE.ancestors(TREE.find("animal")[0]) == []


@pytest.mark.parametrize(
    "label, answer, expected",
    [
        ("golden-winged warbler", "vermivora chrysoptera", Category.SPECIFIC),
        ("golden-winged warbler", "northern golden-winged warbler", Category.MORE_SPECIFIC),
        ("golden-winged warbler", "warbler", Category.LESS_SPECIFIC),
        ("golden-winged warbler", "bird", Category.GENERIC),
        ("golden-winged warbler", "animal", Category.GENERIC),
        ("golden-winged warbler", "blue-winged warbler", Category.WRONG),
        ("blue-winged warbler", "northern golden-winged warbler", Category.WRONG),
        ("golden-winged warbler", "gull", Category.WRONG),
        ("golden-winged warbler", "dog", Category.WRONG),
        ("samoyed", "dog", Category.GENERIC),
        ("707-320", "boeing 707", Category.LESS_SPECIFIC),
        ("707-320", "boeing", Category.GENERIC),
        (
            "707-320",
            "commercial airliner",
            Category.GENERIC,
        ),  # its ~ costs no step, but boeing below it is a second one
        ("707-320", "aircraft", Category.GENERIC),
    ],
)
def test_the_near_rule(label, answer, expected):
    [i], [j] = TREE.find(label), TREE.find(answer)
    assert relation(TREE, i, j) is expected


def test_mentions_take_the_longest_name_and_keep_the_other_words():
    [warbler], [golden], [dog] = TREE.find("warbler"), TREE.find("golden-winged warbler"), TREE.find("dog")
    assert mentions(TREE, "A golden-winged warbler, not a warbler!") == ["a", golden, "not", "a", warbler]
    assert mentions(TREE, "dogs of warblers") == [dog, "of", warbler]
    assert mentions(TREE, "golden winged") == ["golden", "winged"] and mentions(TREE, " ?") == []


def test_near_labels():
    assert near_names("samoyde", TREE.classes()) == ["samoyed"]
    assert near_names("winged warbler", TREE.classes(), k=1) == ["blue-winged warbler"]
    assert near_names("a" * 101, ["a" * 101]) == near_names("qqq", ["samoyed"]) == near_names("x", []) == []


def test_packaged_trees_load_and_are_named_like_their_files():
    trees = load_trees()
    assert {"birds", "flowers", "food", "pets", "cars", "aircraft"} <= set(trees) and list(
        trees
    ) == available_trees() == sorted(trees)
    assert all(tree.dataset == name and tree.digest for name, tree in trees.items())
    assert list(load_trees(["pets"])) == ["pets"]


def test_every_packaged_class_stands_below_a_near_and_a_far_ancestor():
    for tree in load_trees(["birds", "flowers", "food", "pets", "cars", "aircraft"]).values():
        for i, node in enumerate(tree.nodes):
            if node.is_class:
                found = {relation(tree, i, j) for j in tree.ancestors(i)}
                assert found == {Category.LESS_SPECIFIC, Category.GENERIC}, f"{tree.dataset}: {node.name}"


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "own.tree"
    path.write_bytes(b"\xef\xbb\xbf" + (HEAD + "* robin\n").encode())
    assert load_tree(path).classes() == load_tree(str(path)).classes() == ["robin"]


def test_files_that_cannot_be_read(tmp_path):
    known = ", ".join(available_trees())
    assert message(load_tree, "brids") == f"no label tree 'brids': use one of {known}, or the path of a .tree file"
    assert message(load_tree, tmp_path) == f"cannot read {tmp_path}: Is a directory; give the path of a .tree file"
    latin = tmp_path / "latin.tree"
    latin.write_bytes((HEAD + "* crème\n").encode("latin-1"))
    assert message(load_tree, latin) == f"{latin} is not UTF-8 text; save it as UTF-8"
    latin.write_text(HEAD + "bird\n")
    assert message(load_tree, latin) == "latin.tree:1: no class; mark each official label with '* '"


def test_the_example_of_the_data_card_is_a_tree():
    card = (Path(speciarl.__file__).parent / "assets" / "trees" / "README.md").read_text(encoding="utf-8")
    text = "\n".join(line[4:] for line in card.partition("say `tools.tree`:\n\n")[2].partition("\n\n-")[0].split("\n"))
    tree = parse_tree(text, "tools.tree")
    [label] = tree.find("coping saw")
    assert {tree.nodes[i].name: relation(tree, label, i).wire for i in range(len(tree.nodes))} == {
        "thing": "generic",
        "tool": "generic",
        "workshop tool": "generic",
        "saw": "less specific",
        "wood saw": "less specific",
        "fret saw": "specific",
        "spiral fret saw": "more specific",
        "rip saw": "wrong",
    }


def test_a_class_that_is_a_facet_is_less_specific_and_the_other_way_round_more_specific():
    tree = parse_tree(
        HEAD
        + "dish\n  grill\n    * steak\n      rump steak\n  roast\n    * filet mignon < steak\n      petite filet\n   "
        " * ham\n",
        "dishes.tree",
    )
    [steak], [filet], [ham], [grill], [petite] = (
        tree.find(name) for name in ("steak", "filet mignon", "ham", "grill", "petite filet")
    )
    assert (
        relation(tree, filet, steak) is Category.LESS_SPECIFIC
        and relation(tree, steak, filet) is relation(tree, steak, petite) is Category.MORE_SPECIFIC
    )
    assert (
        relation(tree, filet, grill) is Category.GENERIC
        and relation(tree, ham, steak) is relation(tree, steak, ham) is Category.WRONG
    )
    assert {steak, filet} <= tree.kinds and tree.exact == {steak, filet, ham, petite, *tree.find("rump steak")}


@pytest.mark.parametrize(
    "word, mended",
    [
        ("ceasar", "caesar"),
        ("fillet", "filet"),
        ("chihuahau", "chihuahua"),
        ("rottweilar", "rottweiler"),
        ("painter", "painter"),
        ("zebra", "zebra"),
        ("filet4", "filet4"),
    ],
)
def test_one_slip_of_the_pen_is_mended_and_no_more(word, mended):
    tree = parse_tree(
        HEAD + "* caesar salad\n* filet mignon special | special filet\n* chihuahua\n* rottweiler\n* pointer\n",
        "t.tree",
    )
    if word == "fillet":
        assert tree.mend("speciel") == "speciel" and tree.mend("specal") == "special"
    else:
        assert tree.mend(word) == mended
