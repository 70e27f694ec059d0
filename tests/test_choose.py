"Choosing a judge: what a description says, what it makes, and where verdicts of a language model are kept."

import pytest
from judge_server import judge_server, judge_server_process  # noqa: F401 - fixtures
from refusal import message

from speciarl.core.config import Strict, validated
from speciarl.core.scale import Category, UserError
from speciarl.data.trees import label_trees, load_trees
from speciarl.judges.choose import CascadeJudge, JudgeSpec, StoredJudge, judge_card, make_judge, remembering
from speciarl.judges.llm import LLMJudge
from speciarl.judges.store import open_store
from speciarl.judges.tree import TreeJudge

PAIRS = [("samoyed", "dog"), ("samoyed", "samoyed mix"), ("samoyed", "white spitz"), ("samoyed", "white spitz")]


class OfAJudge(Strict):
    judge: JudgeSpec = JudgeSpec()


def spec(judge_server, kind="llm", **changes) -> JudgeSpec:
    return JudgeSpec(kind, model="judge", url=judge_server.url, **changes)


def test_a_description_says_what_is_wrong_with_it():
    assert message(JudgeSpec, "oracle") == "unknown judge 'oracle': use one of taxonomy, llm, cascade"
    found = validated(OfAJudge, {"judge": {"kind": "llm", "model": "m", "url": "u"}}, "mine.yaml").judge
    assert found == JudgeSpec("llm", model="m", url="u") and found.asks_model and not JudgeSpec().asks_model
    for values, where in (
        ({"kind": "oracle"}, "mine.yaml: judge: unknown judge 'oracle'"),
        ({"kin": "llm"}, "judge.kin"),
    ):
        with pytest.raises(UserError) as error:
            validated(OfAJudge, {"judge": values}, "mine.yaml")
        assert where in str(error.value) and "\n" not in str(error.value)


def test_the_trees_of_a_judge_are_those_it_is_given(tmp_path):
    birds = load_trees(["birds"])
    judge = make_judge(JudgeSpec(strict=True), trees=birds)
    assert judge.identity == TreeJudge(birds, strict=True).identity and set(judge.trees) == {"birds"}
    assert make_judge(JudgeSpec()).identity == TreeJudge().identity


def test_a_tree_of_ones_own_is_known_by_its_header_and_told_in_the_card(tmp_path):
    own = tmp_path / "file.tree"
    own.write_text("@dataset mine\n@title Mine\n@domain pet\npet\n  spitz\n    * samoyed\n")
    trees = label_trees(own, own, None)
    assert set(trees) == {*load_trees(), "mine"}
    judge = make_judge(JudgeSpec(), trees=trees)
    assert [verdict.category for verdict in judge([("samoyed", "spitz")] * 2, ["mine", None])] == [
        Category.LESS_SPECIFIC,
        Category.LESS_SPECIFIC,
    ]
    assert judge_card(judge)["trees"] == {"mine": trees["mine"].digest} and "trees" not in judge_card(TreeJudge())
    own.write_text(own.read_text().replace("@dataset mine", "@dataset pets"))
    assert "a packaged tree is called @dataset pets; give it another name" in message(label_trees, own)


def test_the_world_is_asked_only_if_it_is_wanted(tmp_path):
    own = tmp_path / "oaks.tree"
    own.write_text("@dataset oaks\n@title Oaks\n@domain plant\nplant\n  oak\n    * cork oak\n    * holm oak\n")
    pairs = [("cork oak", text) for text in ("oak", "holm oak", "cat", "dessert", "samoyed", "Boeing 747")]
    alone = make_judge(JudgeSpec(), trees=label_trees(own))
    beside = make_judge(JudgeSpec(world=True), trees=label_trees(own))
    found = [verdict.category for verdict in alone(pairs, ["oaks"] * len(pairs))]
    assert found == [Category.LESS_SPECIFIC, Category.WRONG, None, None, None, None]
    assert [verdict.category for verdict in beside(pairs, ["oaks"] * len(pairs))][2:] == [Category.WRONG] * 4
    assert alone.identity != beside.identity


def test_a_tree_of_ones_own_decides_nothing_for_the_labels_of_others(tmp_path):
    own = tmp_path / "mine.tree"
    own.write_text("@dataset mine\n@title Mine\n@domain robot\nrobot\n  toy\n    * fluffy thing\n    * white dog\n")
    pairs = [("samoyed", text) for text in ("fluffy thing", "white dog", "robot", "dog", "toy", "spitz")]
    bare, mixed = make_judge(JudgeSpec()), make_judge(JudgeSpec(), trees=label_trees(own))
    for datasets in (None, ["oxford_pets"] * len(pairs)):
        assert mixed(pairs, datasets) == bare(pairs, datasets)


def test_a_language_model_remembers_only_where_it_is_given_a_store(tmp_path, judge_server):
    said = []
    bare = make_judge(spec(judge_server), say=said.append)
    assert isinstance(bare, LLMJudge) and list(tmp_path.iterdir()) == []
    kept = make_judge(spec(judge_server), tmp_path / "v.sqlite", say=said.append)
    assert isinstance(kept, StoredJudge) and kept.identity == bare.identity
    assert said[0] + f"; verdicts are kept in {tmp_path / 'v.sqlite'}" == said[1] and said[0].startswith(
        "judge: judge, "
    )
    assert kept(PAIRS) == bare(PAIRS)
    judge_server.set()
    with open_store(tmp_path / "v.sqlite") as store:
        again = remembering(bare, store)
        assert again(PAIRS) == kept(PAIRS) and (again.hits, again.asked) == (3, 0)
        assert make_judge(spec(judge_server), store).store is store
    assert judge_server.stats()["pairs"] == {}


def test_the_cascade_keeps_what_its_second_judge_says(tmp_path, judge_server):
    judge = make_judge(spec(judge_server, "cascade"), tmp_path / "v.sqlite", load_trees(["oxford_pets"]))
    verdicts = judge(PAIRS, ["oxford_pets"] * 4)
    assert verdicts[0].category is Category.GENERIC and [verdict.source for verdict in verdicts[1:]] == ["llm"] * 3
    assert judge.second.asked == judge.second.store.count() == len(judge_server.stats()["pairs"]) == 2
    card = judge_card(judge)
    assert (card["judge"], card["model"], card["identity"]) == ("cascade", "judge", judge.identity)
    assert judge.identity == CascadeJudge(judge.first, judge.second.judge).identity
    assert judge_card(judge.second)["judge"] != "cascade" and judge_card(judge.first)["judge"] == "taxonomy"


def test_a_server_that_is_not_there_leaves_no_store(tmp_path):
    gone = JudgeSpec("llm", model="judge", url="http://127.0.0.1:1/v1")
    with pytest.raises(UserError):
        make_judge(gone, tmp_path / "v.sqlite")
    assert list(tmp_path.iterdir()) == []
    needs = "a language model as judge needs its server and its name: --url and --model"
    assert message(make_judge, JudgeSpec("llm", model="judge"), needs="--url and --model") == needs
