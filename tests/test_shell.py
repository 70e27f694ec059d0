"The comfort of a shell: completion, one JSON object for programs, a list of recipes, and commands that can be copied."

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import miniature
import pytest
import yaml
from command_line import call, ok, refused
from typer.testing import CliRunner

from speciarl.cli.app import OFFERED, app
from speciarl.core.config import ASSETS, available, described
from speciarl.data.trees import available_trees
from speciarl.training.plan import launch
from speciarl.training.recipe import load_recipe

ROOT = Path(__file__).parent.parent
PAIRS = "label,answer,dataset\nbeagle,beagle,pets\nbeagle,dog,pets\nbeagle,,pets\nbeegle,dog,pets\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pairs.csv").write_text(PAIRS)
    return tmp_path


# -- completion


def offered(line: str, shell: str = "bash") -> list[str]:
    "What a shell is offered at the end of `line`."
    asked = {"_SPECIARL_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        asked |= {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    else:
        asked |= {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    result = CliRunner().invoke(app, [], prog_name="speciarl", env=asked)
    assert result.stderr == "", result.stderr
    return result.stdout.split("\n")[:-1] if result.stdout.strip() else []


@pytest.mark.parametrize(
    "line, names",
    [
        ("speciarl judge pairs.csv --judge ", ["taxonomy", "llm", "cascade"]),
        ("speciarl evaluate --judge t", ["taxonomy"]),
        ("speciarl judge pairs.csv --dataset cu", ["cub200"]),
        ("speciarl evaluate --data stanford_", ["stanford_cars", "stanford_dogs"]),
        ("speciarl closed --data bi", ["birds"]),
        ("speciarl train paper/fine_r1_c", ["paper/fine_r1_cot_3b", "paper/fine_r1_cot_7b"]),
        ("speciarl doctor --recipe smoke/speciarl_s", ["smoke/speciarl_single"]),
        ("speciarl reproduce --profile ", ["laptop", "paper", "smoke"]),
        ("speciarl data check f", ["fgvc_aircraft", "flowers102", "food101"]),
        ("speciarl tree check bi", ["birds"]),
        ("speciarl rec", ["recipes"]),
        ("speciarl score verdicts.csv --js", ["--json"]),
        ("speciarl train unicorn", []),  # the shell offers files then
    ],
)
def test_tab_offers_names(line, names):
    assert offered(line) == names


def test_zsh_and_fish_are_told_what_a_recipe_is():
    "In one line each: fish takes any further line for a name."
    told = [line.split("\t") for line in offered("speciarl train ", "fish")]
    assert [name for name, _ in told] == available("recipes")
    assert all(described("recipes")[name].startswith(what.removesuffix(" ...")) for name, what in told)
    assert "TAPO with nothing of it" in "".join(offered("speciarl train smoke/tapo_of", "zsh"))


@pytest.mark.parametrize(
    "line", ["speciarl unicorn --judge ", "speciarl judge --nothing x --judge ", "speciarl judge '"]
)
def test_tab_after_a_wrong_line_prints_no_error(line):
    offered(line)


def test_every_name_in_the_table_is_one_that_exists():
    "An option that is renamed takes its names with it; trees and judges that are offered can be asked for."
    names = {f"{group.name} ": group.typer_instance for group in app.registered_groups} | {"": app}
    parameters = {}
    for before, application in names.items():
        for command in application.registered_commands:
            name = before + (command.name or command.callback.__name__)
            parameters[name] = list(inspect.signature(command.callback).parameters)
    for command, options in OFFERED.items():
        assert set(options) <= set(parameters[command]), command
    assert set(OFFERED["tree show"]["name"]()) == set(available_trees())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script(shell):
    result = CliRunner().invoke(app, [], prog_name="speciarl", env={"_SPECIARL_COMPLETE": f"source_{shell}"})
    assert "_SPECIARL_COMPLETE" in result.stdout and f"complete_{shell}" in result.stdout


SCRIPTS = {  # a script as it is installed, loaded and asked in a real shell
    "bash": """
eval "$(_SPECIARL_COMPLETE=source_bash speciarl)"
COMP_WORDS=({words}); COMP_CWORD={last}
_speciarl_completion speciarl; echo "${{COMPREPLY[@]}}"
""",
    "zsh": """
compdef() {{ }}; _arguments() {{ print -r -- "$@" }}; _files() {{ print files }}
eval "$(_SPECIARL_COMPLETE=source_zsh speciarl)"
words=({words}); CURRENT={last}+1
_speciarl_completion
""",
    "fish": """
_SPECIARL_COMPLETE=source_fish speciarl | source
complete -C "{words}"
""",
}


@pytest.mark.parametrize(
    "shell",
    ["bash", pytest.param("zsh", marks=pytest.mark.needs_zsh), pytest.param("fish", marks=pytest.mark.needs_fish)],
)
@pytest.mark.parametrize(
    "words, name",
    [
        ("speciarl rec", "recipes"),
        ("speciarl score verdicts.csv --js", "--json"),
        ("speciarl train smoke/tapo_of", "smoke/tapo_off"),
        ("speciarl compare a.csv b.csv --tree cub", "cub200"),
    ],
)
def test_a_real_shell_completes_by_its_script(tmp_path, shell, words, name):
    program = tmp_path / "speciarl"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m speciarl.cli "$@"\n')
    program.chmod(0o755)
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    script = SCRIPTS[shell].format(words=words, last=len(words.split()) - 1)
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, env=os.environ | own)
    assert name in re.split(r"[\s\"':()]+", done.stdout) and done.stderr == "", (done.stdout, done.stderr)


# -- JSON


def test_judge_and_score_for_a_program(folder):
    told = json.loads(ok("judge", "pairs.csv", "--out", "verdicts.csv", "--json"))
    assert told["pairs"] == 4 and told["levels"]["specific"] == 1 and told["levels"]["wrong"] == 1
    assert told["without_verdict"] == {"unknown label": 1} and told["without_answer"] == 1
    assert Path(told["verdicts"]).is_file() and Path(told["card"]).is_file()
    scored = json.loads(ok("score", "verdicts.csv", "--by", "dataset", "--out", "scores", "--json"))
    assert [row["group"] for row in scored["scores"]] == ["pets", "all"] and scored["written"] == "scores"
    row = scored["scores"][-1]
    assert row["C"]["low"] <= row["C"]["value"] <= row["C"]["high"] and row["missing"] == 0.25
    assert Path("scores/scores.csv").is_file()


def test_what_is_not_a_number_is_null(folder):
    "JSON has no NaN; a table without a single verdict has nothing else."
    Path("none.csv").write_text("label,answer,category\nbeagle,dog,\n")
    told = ok("score", "none.csv", "--json")
    assert json.loads(told, parse_constant=pytest.fail)["scores"][0]["S"]["value"] is None


def test_notes_go_to_standard_error(folder):
    Path("gaps.csv").write_text(PAIRS + ",dog,pets\n")
    result = call("judge", "gaps.csv", "--out", "verdicts.csv", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["pairs"] == 4 and result.stderr.strip()


def test_a_bad_end_has_its_object_and_its_line(folder):
    "No label is known: the table is written, so the object is printed; the exit code and the line say that it is bad."
    Path("unknown.csv").write_text("label,answer\nbeegle,dog\n")
    result = call("judge", "unknown.csv", "--out", "verdicts.csv", "--json")
    assert result.exit_code == 1 and json.loads(result.stdout)["without_verdict"] == {"unknown label": 1}
    assert result.stderr.startswith("error: no label of unknown.csv is known") and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["judge", "nothing.csv", "--out", "verdicts.csv"],
        ["judge", "pairs.csv", "--out", "pairs.csv"],
        ["score", "nothing.csv"],
        ["score", "pairs.csv"],
        ["compare", "pairs.csv"],
        ["compare", "one", "other"],
        ["doctor", "--recipe", "smoke/specarl"],
        ["tree", "check", "birds", "--labels", "nothing.csv"],
        ["score", "pairs.csv", "--jsn"],
    ],
)
def test_an_error_prints_no_object(folder, arguments):
    refused(*arguments, "--json")
    assert [path.name for path in folder.iterdir()] == ["pairs.csv"]


def test_compare_for_a_program(folder):
    for name, category in (("vague", "generic"), ("bold", "specific")):
        rows = "".join(f"{i},beagle,{category}\n" for i in range(10))
        Path(f"{name}.csv").write_text(f"sample_id,label,category\n{rows}")
    told = ok("compare", "vague.csv", "bold.csv", "--out", "all.json", "--json")
    assert json.loads(told) == json.loads(Path("all.json").read_text()) and json.loads(told)["images"] == 10


def test_a_tree_for_a_program(folder):
    told = json.loads(ok("tree", "check", "birds", "--json"))
    assert told["tree"] == "birds" and told["classes"] > 10 and told["domain"] == "bird"
    Path("labels.csv").write_text("label\nunicorn\n")
    result = call("tree", "check", "birds", "--labels", "labels.csv", "--json")
    found = json.loads(result.stdout)["findings"]
    assert result.exit_code == 1 and any(finding["wrong"] for finding in found) and result.stderr.count("\n") == 1
    result = call("tree", "check", "unicorns", "--json")
    assert (result.exit_code, result.stdout) == (1, "") and result.stderr.startswith("error: no label tree")


def test_doctor_for_a_program(folder):
    told = json.loads(ok("doctor", "--recipe", "smoke/speciarl", "--json"))
    assert {finding["state"] for finding in told["findings"]} <= {"ok", "missing"} and "judge" in told["ready"]
    assert told["plan"]["commands"] == ["speciarl train smoke/speciarl --out RUN"] and told["plan"]["gpus"] == []
    result = call("doctor", "--recipe", "paper/speciarl", "--processes", 4, "--json")
    plan = json.loads(result.stdout)["plan"]
    assert result.exit_code == 1 and not all(check["holds"] for check in plan["checks"]) and len(plan["gpus"]) == 2
    assert result.stderr.startswith("error: the recipe cannot be run yet")


@pytest.mark.parametrize(
    "arguments", [["recipes"], ["tree", "check", "birds", "--json"], ["train", "smoke/sft", "--plan"]]
)
def test_a_reader_that_goes_away_gets_no_traceback(arguments):
    "As in `speciarl recipes | true`, and stdout buffered, as it is in a pipe."
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "speciarl.cli", *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


# -- recipes


def test_every_recipe_is_listed_with_a_line():
    lines = ok("recipes").splitlines()
    assert [line.split()[0] for line in lines] == available("recipes")
    assert all(len(line.split()) > 3 and not re.search(r"[a-z]: *#", line) for line in lines)


# -- how it is started


def test_the_plan_ends_with_the_command_that_was_planned(tmp_path):
    "With every option that was given, quoted for a shell; a folder that is not known is in capitals."
    run = tmp_path / "my run"
    told = ok("train", "smoke/speciarl", "--plan", "--set", "seed=3", "--set", "data.birds=8", "--out", run)
    last = told.splitlines()[-1]
    assert shlex.split(last.removeprefix("start: ")) == (
        ["speciarl", "train", "smoke/speciarl", "--out", str(run), "--set", "seed=3", "--set", "data.birds=8"]
    )
    told = call("train", "paper/sft", "--plan").stdout.splitlines()
    assert told[-2:] == [
        "GPU 0: training",
        "start: CUDA_VISIBLE_DEVICES=0 speciarl train paper/sft --out RUN --data-root DATA_ROOT",
    ]


def test_gpus_are_split_between_training_rollouts_and_judge():
    main = load_recipe("paper/speciarl")
    how = launch(main, 4, ["paper/speciarl", "--out", "RUN"])
    assert how.gpus == [
        "GPUs 0, 1, 2, 3: training and rollouts (vLLM sleeps while the policy learns)",
        "GPUs 4, 5: judge",
    ]
    judge, train = how.commands
    assert judge == f"JUDGE={main.judge_model} bash {shlex.quote(f'{ASSETS}/launch/judge.sh')} 4,5 8001 0.9"
    assert train.startswith("CUDA_VISIBLE_DEVICES=0,1,2,3 accelerate launch ") and "--num_processes 4" in train
    assert train.endswith(" train paper/speciarl --out RUN --judge-url http://127.0.0.1:8001/v1")

    served = launch(main, 2, ["x"], "http://judge:1/v1")
    assert served.gpus[-1] == "judge: served at http://judge:1/v1, on none of these" and len(served.commands) == 1
    apart = launch(load_recipe("paper/speciarl", ["engine=vllm-server"]), 2, ["x"])
    assert apart.gpus == ["GPUs 0, 1: training", "GPU 2: rollouts", "GPUs 3, 4: judge"]
    assert apart.commands[0].startswith("CUDA_VISIBLE_DEVICES=2 VLLM_SERVER_DEV_MODE=1 vllm serve ")


def test_one_gpu_is_shared_as_the_packaged_script_shares_it():
    how = launch(load_recipe("paper/speciarl"), 1, ["RECIPE"])
    script = (ASSETS / "launch" / "one_gpu.sh").read_text()
    assert how.commands[0].replace("'", "").endswith("judge.sh 0 8001 0.33") and 'judge.sh" 0 8001 0.33' in script
    assert "--set micro_batch=16" in how.commands[1] and "--set micro_batch=16" in script and len(how.gpus) == 1


def test_a_large_policy_is_split_by_fsdp_and_a_small_one_started_by_torchrun():
    assert "fsdp2.yaml" in launch(load_recipe("paper/fine_r1_7b"), 4, ["x"]).commands[-1]
    [command] = launch(load_recipe("smoke/speciarl"), 2, ["smoke/speciarl", "--out", "RUN"]).commands
    assert command == 'torchrun --standalone --nproc-per-node 2 "$(command -v speciarl)" train smoke/speciarl --out RUN'


def test_the_launch_files_name_modules_that_exist():
    "The batch file asks Python where it lies."
    for path in (ASSETS / "launch").iterdir():
        for code in re.findall(r"python -c '([^']+)'", path.read_text()):
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
            assert done.stdout.strip() == str(ASSETS / "launch"), done.stderr


def test_the_plan_of_a_profile_ends_with_how_it_is_started(tmp_path, monkeypatch):
    root = miniature.project(tmp_path / "a project")
    monkeypatch.chdir(root)
    told = ok("reproduce", "--plan", "--workers", "1", "--out", "my results").splitlines()
    assert told[-1] == "start: speciarl reproduce --profile smoke --out 'my results' --workers 1"
    profile = {"like": "smoke", "name": "cards", "needs_cuda": True}
    Path("cards.yaml").write_text(yaml.safe_dump(profile))
    told = ok("reproduce", "--plan", "--profile", "cards.yaml").splitlines()
    assert told[-1] == "start: CUDA_VISIBLE_DEVICES=0 speciarl reproduce --profile cards.yaml"
    assert told[-2].startswith("GPU 0: training and rollouts")
    for url, line in (
        ("http://localhost:8001/v1", "GPU 1: judge"),
        ("http://far:8001/v1", "judge: expected at http://far"),
    ):
        judge = {"kind": "llm", "model": "m", "url": url, "strict": False}
        Path("cards.yaml").write_text(yaml.safe_dump(profile | {"judge": judge}))
        told = ok("reproduce", "--plan", "--profile", "cards.yaml")
        assert line in told and ("judge.sh 1 8001 0.9" in told.replace("'", "")) == ("localhost" in url)
    told = ok("reproduce", "--plan", "--profile", "paper").replace("'", "")
    assert "GPU 1: judge in training\nGPUs 2, 3, 4, 5: judge that evaluates\n" in told
    assert "judge.sh 1 8001 0.9\n" in told and "judge.sh 2,3,4,5 8002 0.9 4\n" in told


def test_reproduce_ends_with_the_path_of_the_paper(tmp_path, monkeypatch):
    root = miniature.project(tmp_path / "a project")
    monkeypatch.chdir(root / "nbs")
    pdf = root / "paper" / "build" / "smoke" / "paper.pdf"
    for _ in range(2):  # made, and kept
        last = ok("reproduce", "--workers", "1").splitlines()[-1]
        assert last == f"the paper: {pdf}" and pdf.is_file()
    assert "the paper:" not in ok("reproduce", "--only", "1_count")


def test_the_plan_of_a_profile_needs_no_torch():
    "It can be read on the machine one submits from."
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'trl', 'datasets'))); "
        "from speciarl.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "reproduce", "--plan", "--profile", "paper"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "start: CUDA_VISIBLE_DEVICES=0 speciarl reproduce --profile paper"
