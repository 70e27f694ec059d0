"A label tree that a language model drafts of a bare list, whatever its server does."

import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web
from command_line import call, ok, refused
from serving import serving

from speciarl.core.calls import BadReply
from speciarl.data.drafting import settle
from speciarl.data.proposing import read_labels, read_proposal
from speciarl.data.trees import load_tree

AMPHIBIANS = {  # label -> ancestors, synonyms
    common: ([order, family, [genus, *also]], [f"{genus} {epithet}"])
    for order, family, genus, also, species in [
        ("Caudata", "Salamandridae", "Triturus", [], "cristatus:great crested newt marmoratus:marbled newt"),
        ("Caudata", "Salamandridae", "Lissotriton", [], "vulgaris:smooth newt helveticus:palmate newt"),
        ("Caudata", "Salamandridae", "Salamandra", [], "salamandra:fire salamander atra:alpine salamander"),
        ("Caudata", "Plethodontidae", "Plethodon", [], "cinereus:red-backed salamander glutinosus:slimy salamander"),
        ("Caudata", "Plethodontidae", "Eurycea", [], "bislineata:two-lined salamander lucifuga:cave salamander"),
        ("Caudata", "Ambystomatidae", "Ambystoma", ["mole salamander"], "tigrinum:tiger salamander "
         "maculatum:spotted salamander opacum:marbled salamander mexicanum:axolotl"),
        ("Anura", "Bufonidae", "Bufo", ["true toad"], "bufo:common toad spinosus:spiny toad"),
        ("Anura", "Bufonidae", "Anaxyrus", [], "americanus:American toad boreas:western toad"),
        ("Anura", "Ranidae", "Rana", ["brown frog"], "temporaria:common frog dalmatina:agile frog arvalis:moor frog"),
        ("Anura", "Ranidae", "Lithobates", [], "catesbeianus:bullfrog pipiens:northern leopard frog "
         "clamitans:green frog"),
        ("Anura", "Hylidae", "Hyla", ["tree frog"], "arborea:European tree frog meridionalis:stripeless tree frog"),
        ("Anura", "Hylidae", "Pseudacris", ["chorus frog"], "crucifer:spring peeper triseriata:striped chorus frog"),
        ("Anura", "Bombinatoridae", "Bombina", [], "bombina:fire-bellied toad variegata:yellow-bellied toad"),
    ]
    for epithet, common in [part.split(":") for part in re.split(r" (?=\w+:)", species)]
}  # fmt: skip


class Handle:
    "A stand-in for a model behind a server; `reply(label, attempt)` is what it says, a text or a status."

    def __init__(self):
        self.asked: Counter = Counter()  # by label; "" is the question about the domain
        self.bodies: list[dict] = []
        self.url = ""
        self.models = [{"id": "toy"}]
        self.knows = {label: (*said, True) for label, said in AMPHIBIANS.items()}
        self.reply = lambda label, attempt: self.text(label)

    def text(self, label):
        if not label:
            return '{"domain": "amphibian"}'
        return json.dumps(dict(zip(("ancestors", "synonyms", "sure"), self.knows[label])))

    async def chat(self, request):
        body = await request.json()
        question = body["messages"][1]["content"]
        label = next((name for name in self.knows if f"One of the names is {json.dumps(name)}." in question), "")
        attempt = self.asked[label]
        self.asked[label] += 1
        self.bodies.append(body)
        said = self.reply(label, attempt)
        if isinstance(said, web.Response):
            return said
        return web.json_response({"choices": [{"message": {"content": said}, "finish_reason": "stop"}]})

    async def list(self, request):
        return web.json_response({"data": self.models})


@pytest.fixture
def server(short_pauses):
    handle = Handle()
    with serving([web.post("/v1/chat/completions", handle.chat), web.get("/v1/models", handle.list)]) as address:
        handle.url = f"{address}/v1"
        yield handle


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("labels.txt").write_text("\n".join(AMPHIBIANS) + "\n")
    return tmp_path


def arguments(server, *more, labels="labels.txt"):
    given = ("tree", "draft", labels, "--base-url", server.url, "--model", "toy", "--out", "my.tree", *more)
    return given if "--domain" in more else (*given, "--domain", "amphibian")


def error(status, words, pause=0):
    return web.json_response({"error": {"message": words}}, status=status, headers={"Retry-After": str(pause)})


def files():
    return sorted(path.name for path in Path().iterdir() if path.name != "labels.txt")


def test_thirty_names_become_a_tree_that_judges(folder, server):
    told = ok(*arguments(server))
    assert len(AMPHIBIANS) == 30 == sum(server.asked.values())
    assert "wrote my.tree: 30 classes in 23 groups, domain 'amphibian'" in told and "it is a draft" in told
    assert files() == ["my.draft.jsonl", "my.draft.md", "my.tree"]
    text = Path("my.tree").read_text()
    nodes = [line for line in text.splitlines() if not line.startswith("@")]
    assert all(line.endswith("  # draft") for line in nodes if line != "amphibian") and "amphibian\n" in text
    tree = load_tree("my.tree")
    assert tree.dataset == "my"
    assert set(tree.classes()) == set(AMPHIBIANS) and not any("#" in name for node in tree.nodes for name in node.names)
    assert "nothing is wrong" in ok("tree", "check", "my.tree", "--labels", labels_table())
    assert "nothing is wrong" in ok("tree", "check", "my.tree", "--labels", "labels.txt"), "as the command says"
    for answer, category in {
        "Rana temporaria": "specific",
        "brown frog": "less specific",
        "Ranidae": "generic",
        "amphibian": "generic",
        "axolotl": "wrong",
    }.items():
        assert ok("tree", "try", "my.tree", "common frog", answer).startswith(f"{category} ("), answer


def labels_table():
    Path("table.csv").write_text("file,label\n" + "".join(f"{i}.jpg,{name}\n" for i, name in enumerate(AMPHIBIANS)))
    return "table.csv"


def test_labels_come_from_any_table_too(folder, server):
    Path("table.csv").write_text("nr;name\n1;axolotl\n2;common_frog\n3;Axolotl\n4;\n")
    ok(*arguments(server, "--label-column", "name", "--dataset", "my frogs", labels="table.csv"))
    assert load_tree("my.tree").classes() == ["axolotl", "common frog"] and load_tree("my.tree").dataset == "my_frogs"
    assert read_labels([{"label": "a"}, {"label": "A"}, {"label": "n/a"}]) == ["a"]
    told = refused(*arguments(server, labels="table.csv"), "--force")
    assert "no column 'label'" in told and "--label-column" in told
    Path("empty.txt").write_text("\n--\n")
    assert "no label in it" in refused(*arguments(server, "--force", labels="empty.txt"))


def test_the_model_says_what_all_are_and_the_line_is_marked(folder, server):
    call("tree", "draft", "labels.txt", "--base-url", server.url, "--model", "toy", "--out", "my.tree")
    text = Path("my.tree").read_text()
    assert "@domain amphibian  # draft\n" in text and "\namphibian  # draft\n" in text
    assert load_tree("my.tree").domain == "amphibian" and server.asked[""] == 1
    assert "nothing is wrong" in ok("tree", "check", "my.tree")


def test_the_second_run_asks_nothing_and_another_model_or_request_asks_all(folder, server):
    ok(*arguments(server))
    before, text = server.asked.copy(), Path("my.tree").read_text()
    assert "my.tree exists" in refused(*arguments(server))
    ok(*arguments(server, "--force"))
    assert server.asked == before and Path("my.tree").read_text() == text
    ok(*arguments(server, "--force", "--request", "top_k=20"))
    assert set(server.asked.values()) == {2} and server.bodies[-1]["top_k"] == 20
    server.models = [{"id": "toy", "root": "toys/other-weights"}]
    ok(*arguments(server, "--force"))
    assert set(server.asked.values()) == {3}
    ok(*arguments(server, "--force", "--domain", "animal"))
    assert set(server.asked.values()) == {4}
    server.models.append({"id": "other"})
    ok("tree", "draft", "labels.txt", "--base-url", server.url, "--model", "other", "--out", "my.tree", "--force",
       "--domain", "amphibian")  # fmt: skip
    assert set(server.asked.values()) == {5}


@pytest.mark.parametrize("kind", ["500", "nonsense"])
def test_a_third_of_the_calls_fails_and_the_tree_is_the_same(folder, server, kind):
    ok(*arguments(server))
    whole = Path("my.tree").read_text()
    Path("my.draft.jsonl").unlink()
    server.asked.clear()
    calls = [0]

    def reply(label, attempt):
        calls[0] += 1
        if calls[0] % 3 == 2 and attempt < 2:
            return error(500, "out of memory") if kind == "500" else "Well, that is a frog."
        return server.text(label)

    server.reply = reply
    ok(*arguments(server, "--force"))
    assert Path("my.tree").read_text() == whole and sum(server.asked.values()) > 30
    if kind == "nonsense":
        again = next(body["messages"] for body in server.bodies if len(body["messages"]) == 4)
        assert again[2] == {"role": "assistant", "content": "Well, that is a frog."}
        assert "not the JSON that was asked for" in again[3]["content"]


def test_some_labels_without_a_reply_stand_below_the_domain_and_say_so(folder, server):
    lost = ["axolotl", "bullfrog", "common toad"]
    server.reply = lambda label, attempt: "I do not know." if label in lost else server.text(label)
    told = ok(*arguments(server))
    assert all(server.asked[label] == 3 for label in lost), "asked again, and not for ever"
    text, tree = Path("my.tree").read_text(), load_tree("my.tree")
    page = Path("my.draft.md").read_text()
    for label in lost:
        assert f"\n  * {label}  # draft, unsure: no usable reply\n" in text
        assert f"    {label}: no usable reply\n" in told and f"- {label}: the model wrote 'I do not know.'" in page
        assert tree.nodes[tree.find(label)[0]].parent == tree.domain_node
    server.reply = lambda label, attempt: server.text(label)
    before = server.asked.copy()
    ok(*arguments(server, "--force"))
    assert dict(server.asked - before) == dict.fromkeys(lost, 1), "only what was missing is asked"
    assert "unsure" not in Path("my.tree").read_text()


def test_a_server_of_nonsense_ends_in_a_line_and_leaves_no_tree(folder, server):
    server.reply = lambda label, attempt: "Blue, on most days."
    result = call(*arguments(server))
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1), result.output
    assert "have no usable reply of toy, more than 20% (" in result.stderr and "Blue, on most days" in result.stderr
    assert files() == []
    result = call("tree", "draft", "labels.txt", "--base-url", server.url, "--model", "toy", "--out", "my.tree")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "say it with --domain" in result.stderr
    server.reply = lambda label, attempt: web.Response(text="<html>Welcome</html>", content_type="text/html")
    assert "no model at" in refused(*arguments(server)) and files() == []


def test_nothing_more_is_asked_once_there_can_be_no_tree(folder, server):
    Path("labels.txt").write_text("\n".join(f"frog {i}" for i in range(400)))
    server.knows = {f"frog {i}": () for i in range(400)}
    server.reply = lambda label, attempt: "{}"
    assert "of 400 labels have no usable reply" in call(*arguments(server)).stderr
    assert len(server.asked) < 200 and server.asked.total() < 600


def test_the_share_of_labels_without_a_reply_can_be_set(folder, server):
    lost = list(AMPHIBIANS)[:9]
    server.reply = lambda label, attempt: "?" if label in lost else server.text(label)
    assert call(*arguments(server)).exit_code == 1 and not Path("my.tree").exists()
    ok(*arguments(server, "--max-missing", "0.3"))
    assert load_tree("my.tree").classes()


def test_a_server_that_is_down_or_refuses_ends_in_one_line(folder, server):
    for status, words in ((401, "check the API key"), (404, "check the base URL and the name of the model")):
        server.reply = lambda label, attempt, status=status: error(status, "no")
        assert words in refused(*arguments(server)) and files() == []
    server.models = [{"id": "another"}]
    assert "the server has no model 'toy'; it has another" in refused(*arguments(server))
    server.models, server.reply = [{"id": "toy"}], lambda label, attempt: error(500, "out of memory")
    assert "no model at" in refused(*arguments(server)) and files() == []
    server.url = "http://127.0.0.1:9/v1"
    assert "start the server or mend the base URL" in refused(*arguments(server)) and files() == []
    server.url = "localhost"
    assert "base_url is no http(s) address" in refused(*arguments(server))


def test_a_server_that_dies_on_the_way_leaves_its_replies_and_no_tree(folder, server):
    server.reply = lambda label, attempt: (
        server.text(label) if len(server.asked) <= 12 else error(503, "the server is stopping")
    )
    result = call(*arguments(server))
    assert result.exit_code != 0 and result.stdout == "" and result.stderr.count("\n") == 1, result.output
    assert files() == ["my.draft.jsonl"]
    kept = [json.loads(line)["label"] for line in Path("my.draft.jsonl").read_text().splitlines()]
    server.reply = lambda label, attempt: server.text(label)
    server.asked.clear()
    ok(*arguments(server))
    assert set(server.asked) == set(AMPHIBIANS) - set(kept)  # what was on its way at the kill may be counted twice


def test_fields_that_a_server_does_not_take_are_left_out(folder, server):
    def reply(label, attempt):
        body = server.bodies[-1]
        for name in ("response_format", "temperature"):
            if name in body:
                return error(400, f"Unrecognized request argument supplied: {name}")
        return server.text(label)

    server.reply = reply
    result = call(*arguments(server))
    assert result.exit_code == 0 and "response_format" in result.stderr, result.output
    assert sum(server.asked.values()) == 32 and load_tree("my.tree").classes()


def test_one_label_that_a_server_refuses_is_one_label_without_a_reply(folder, server):
    server.reply = lambda label, attempt: error(400, "filtered") if label == "bullfrog" else server.text(label)
    assert "bullfrog: no usable reply" in ok(*arguments(server))


def test_killed_and_started_again_it_goes_on(folder, server):
    replies = Path("my.draft.jsonl")
    server.reply = lambda label, attempt: server.text(label) if len(server.asked) <= 8 else error(503, "busy", 30)
    command = [sys.executable, "-m", "speciarl.cli", *arguments(server)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if replies.exists() and replies.read_bytes().count(b"\n") >= 5:
            break
        time.sleep(0.05)
    process.kill()  # SIGKILL
    process.wait()
    assert not Path("my.tree").exists() and not Path("my.draft.md").exists()
    with open(replies, "a") as file:
        file.write('{"asked": "half a li')
    kept = [json.loads(line)["label"] for line in replies.read_text().splitlines()[:-1]]
    assert 5 <= len(kept) < 30
    server.reply = lambda label, attempt: server.text(label)
    server.asked.clear()
    ok(*arguments(server))
    assert set(server.asked) == set(AMPHIBIANS) - set(kept)  # what was on its way at the kill may be counted twice
    assert len(replies.read_text().splitlines()) == 30 and set(load_tree("my.tree").classes()) == set(AMPHIBIANS)


def test_two_drafts_of_one_tree_at_once_are_one_draft_and_one_clear_line(folder, server):
    replies = Path("my.draft.jsonl")
    server.reply = lambda label, attempt: server.text(label) if len(server.asked) <= 8 else error(503, "busy", 30)
    command = [sys.executable, "-m", "speciarl.cli", *arguments(server)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if replies.exists():
            break
        time.sleep(0.05)
    line = refused(*arguments(server))
    assert "my.draft.jsonl: another process is at work on these replies; wait for it, or choose another --out" in line
    assert process.poll() is None
    process.kill()
    process.wait()
    server.reply = lambda label, attempt: server.text(label)
    ok(*arguments(server))  # a lock of a killed process holds nobody
    assert not list(folder.glob(".*")) and len(replies.read_text().splitlines()) == 30


def test_a_file_that_holds_no_replies_is_refused(folder, server):
    Path("my.draft.jsonl").write_text('{"label": "mine"}\n')
    assert "my.draft.jsonl:1: no reply of a model; delete it" in refused(*arguments(server))
    Path("my.draft.jsonl").write_text("mine\nalso\n")
    assert "my.draft.jsonl:1: not a line of JSON" in refused(*arguments(server)) and not server.asked


def test_what_contradicts_itself_goes_with_the_majority_and_is_told(folder, server):
    def says(label, *path, sure=True):
        server.knows[label] = (list(path), [], sure)

    says("moor frog", "Anura", "Hylidae", "Rana")  # the two others of the genus say Ranidae
    says("green frog", "Lithobates", "Ranidae")  # the wrong way round
    says("spiny toad", "Anura", "toad family", "true toad", sure=False)  # what another calls Bufo
    says("cave salamander", "Caudata", "Eurycea")  # a step left out is no contradiction
    told = ok(*arguments(server))
    tree, text = load_tree("my.tree"), Path("my.tree").read_text()

    def above(name):
        return [tree.nodes[i].name for i in tree.ancestors(tree.find(name)[0])]

    assert above("moor frog") == ["Rana", "Ranidae", "Anura", "amphibian"]
    assert above("green frog") == ["Lithobates", "Ranidae", "Anura", "amphibian"]
    assert above("spiny toad") == above("common toad") == ["Bufo", "Bufonidae", "Anura", "amphibian"]
    assert above("cave salamander") == ["Eurycea", "Plethodontidae", "Caudata", "amphibian"]
    for line in (
        "Rana: below 'Ranidae' (2 labels), not below 'Hylidae' ('moor frog')",
        "not below 'Lithobates' ('green frog'): that is a circle",
        "Bufo: 'true toad' is taken for another name of it",
        "spiny toad: the model is not sure",
    ):
        assert line in told and line in Path("my.draft.md").read_text(), line
    assert "# draft, unsure: the model is not sure\n" in text and "Eurycea  # draft\n" in text
    assert "nothing is wrong" in ok("tree", "check", "my.tree", "--labels", labels_table())


def test_settling_always_ends_in_a_tree():
    draw = random.Random(0)
    for _ in range(300):
        names = [f"g{i}" for i in range(draw.randint(1, 6))]
        labels = [f"x{i}" for i in range(draw.randint(1, 8))]
        pool = names + labels[:2]
        paths = {label: draw.sample(pool, draw.randint(1, len(pool))) for label in labels}
        paths = {label: [name for name in path if name != label] for label, path in paths.items()}
        others = {name: draw.sample(pool, 1) for path in paths.values() for name in path[:1]}
        settled = settle(paths, others).paths
        assert list(settled) == labels
        parents = {}
        for label, path in settled.items():
            whole = [*path, label]
            assert len(set(whole)) == len(whole)
            for above, below in zip(["", *path], whole):
                assert parents.setdefault(below, above) == above, paths


def test_a_label_above_others_is_a_group_and_said_to_be(folder, server):
    Path("few.txt").write_text("frog\ncommon frog\nmoor frog\naxolotl\n")
    server.knows["frog"] = (["Anura"], [], True)
    server.knows["common frog"] = server.knows["moor frog"] = (["Anura", "frog"], [], True)
    told = ok(*arguments(server, labels="few.txt"))
    assert "frog: a label that stands above others, so it is a group and no class" in told
    assert load_tree("my.tree").classes() == ["common frog", "moor frog", "axolotl"]


def test_the_domain_may_not_be_a_label(folder, server):
    for word in ("Axolotl", "--"):
        assert "is a label or no name" in refused(*arguments(server, "--domain", word)) and not server.asked


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "not the JSON"),
        ("[1]", "not the JSON"),
        ('{"ancestors": [["a"]]}', "sure: Field required"),
        ('{"ancestors": "a", "sure": true}', "ancestors: Input should be a valid list"),
        ('{"ancestors": [[1]], "sure": true}', "ancestors.0.0: Input should be a valid string"),
        ('{"ancestors": [], "sure": true}', "0 groups between 'frog' and 'animal'"),
        ('{"ancestors": ["animal", "Frogs"], "sure": true}', "0 groups"),
        ('{"ancestors": ["' + "a very long sentence " * 5 + '"], "sure": true}', "which is no name"),
        (json.dumps({"ancestors": [f"g{i}" for i in range(40)], "sure": True}), "40 groups"),
        ("{" * 100_000 + "}", "not the JSON"),
    ],
)
def test_a_reply_that_cannot_be_used_is_refused_in_words(text, said):
    with pytest.raises(BadReply, match=said.replace("(", r"\(").replace("[", r"\[")):
        read_proposal(text, "frog", "animal")


def test_a_reply_may_think_and_stand_in_a_fence_and_hold_marks_of_the_tree_file():
    found = read_proposal(
        '<think>{"ancestors"?}</think>Here:\n```json\n{"ancestors": [["# a|b", "* c"], "An\\u0000ura [x]"], '
        '"synonyms": ["@d < e", "Frog", "n/a"], "sure": "no", "more": 1}\n```', "frog", "animal"
    )  # fmt: skip
    assert found.ancestors == [["a b", "c"], ["Anura x"]] and found.synonyms == ["d e"] and not found.sure
