"Published predictions: whatever passes the reader can be scored, and whatever is wrong is one line with its row."

import json
from importlib.resources import files

import jsonschema
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from speciarl.core.scale import MISSING, WIRE_NAMES, UserError
from speciarl.data.samples import Sample
from speciarl.policy.predictions import (
    Predictions,
    check_against,
    check_labels,
    codes_of,
    convert,
    json_schema,
    read_predictions,
    to_table,
    write_predictions,
)

SCHEMA = json.loads((files("speciarl") / "assets" / "schemas" / "predictions.schema.json").read_text(encoding="utf-8"))


def row(i=0, **changes):
    return (
        dict(
            sample_id=f"{i}.png",
            dataset="birds",
            split="test",
            label="ovenbird",
            prompt="general",
            rollout=0,
            text="<answer>bird</answer>",
            answer="bird",
            category="generic",
            source="tree",
            reason="",
        )
        | changes
    )


def published(rows, **card):
    return Predictions(card, to_table(rows))


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines()


def refuse(path, message):
    with pytest.raises(UserError) as error:
        read_predictions(path)
    assert str(error.value) == message.replace("PATH", str(path)) and "\n" not in str(error.value)


def test_the_schema_of_the_package_is_that_of_the_code():
    assert json_schema() == SCHEMA
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_what_is_written_fits_the_schema(tmp_path):
    write_predictions(
        tmp_path / "a.jsonl",
        published(
            [row(), row(1, answer=None, text=None, dataset=None, category=None, source=None, reason=None)], model="m"
        ),
    )
    for line in lines_of(tmp_path / "a.jsonl"):
        jsonschema.validate(json.loads(line), SCHEMA)


BAD_ROWS = [
    (
        dict(category="less_specific"),
        "category: input should be 'wrong', 'abstain', 'generic', 'less specific', 'specific' or 'more specific'",
    ),
    (dict(rollout=-1), "rollout: input should be greater than or equal to 0"),
    (dict(rollout="0"), "rollout: input should be a valid integer"),
    (dict(rollout=True), "rollout: input should be a valid integer"),
    (dict(label=""), "label: string should have at least 1 character"),
    (dict(sample_id=None), "sample_id: input should be a valid string"),
    (dict(answer=3), "answer: input should be a valid string"),
    (dict(image="/home/me/1.png"), "unknown field 'image'"),
]


@pytest.mark.parametrize("changes, fault", BAD_ROWS)
def test_a_bad_row_is_named(tmp_path, changes, fault):
    write_predictions(tmp_path / "a.jsonl", published([row(i) for i in range(4)]))
    bad = row(2, **changes)
    lines = lines_of(tmp_path / "a.jsonl")
    lines[3] = json.dumps(bad)
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    refuse(tmp_path / "a.jsonl", f"PATH: row 3: {fault}; see predictions.schema.json")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, SCHEMA)


@pytest.mark.parametrize(
    "text",
    ["", "\n", "[]\n", "{}\n", "null\n", "\x00\x01", '{"format": "speciarl verdicts", "version": 1}\n', "[" * 100_000],
)
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(text)
    refuse(
        tmp_path / "a.jsonl",
        "PATH: not a file of published predictions (the first line, or the metadata of Parquet, must be a header "
        "with format 'speciarl predictions'); write it with speciarl.policy.predictions",
    )


def test_headers(tmp_path):
    write_predictions(tmp_path / "a.jsonl", published([row()]))
    head, body = lines_of(tmp_path / "a.jsonl")
    for change, message in (
        (
            dict(predictions=-1),
            "PATH: header: predictions: input should be greater than or equal to 0; publish the predictions again",
        ),
        (dict(card=None), "PATH: header: card: input should be a valid dictionary; publish the predictions again"),
        (
            dict(version=2),
            "PATH: the format is version 2, this package reads version 1; use a matching version of speciarl",
        ),
        (dict(predictions=2), "PATH: 1 predictions, but the header says 2; the file is incomplete, fetch it again"),
    ):
        (tmp_path / "a.jsonl").write_text(json.dumps(json.loads(head) | change) + "\n" + body + "\n")
        refuse(tmp_path / "a.jsonl", message)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_rows_that_are_there_twice_and_labels_that_change(tmp_path, name):
    write_predictions(tmp_path / name, published([row(0), row(1), row(0)]))
    refuse(tmp_path / name, "PATH: row 3: rollout 0 of sample '0.png' is there twice; keep one")
    write_predictions(tmp_path / name, published([row(0), row(1), row(0, rollout=1, label="hooded warbler")]))
    refuse(tmp_path / name, "PATH: row 3: sample '0.png' has another label than before; correct one")


def test_the_same_id_in_two_data_sets_is_two_samples(tmp_path):
    write_predictions(tmp_path / "a.parquet", published([row(0), row(0, dataset="pets", label="pug")]))
    assert codes_of(read_predictions(tmp_path / "a.parquet")).keys == [("birds", "0.png"), ("pets", "0.png")]


def write_parquet(path, table, head):
    parquet.write_table(table.replace_schema_metadata({"speciarl": json.dumps(head)} if head else None), path)


HEAD = {"format": "speciarl predictions", "version": 1, "predictions": 3, "card": {}}
THREE = to_table([row(0), row(1), row(2)])


def test_damaged_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    for _what, table, message in [
        (
            "column",
            THREE.drop_columns(["label"]),
            "PATH: column 'label' is missing or there twice; the columns are " + ", ".join(THREE.column_names),
        ),
        (
            "more",
            THREE.append_column("image", pa.array(["x"] * 3)),
            "PATH: column 'image' is unknown; the columns are " + ", ".join(THREE.column_names),
        ),
        (
            "type",
            THREE.set_column(5, "rollout", pa.array([0.5, 1, 2])),
            "PATH: column 'rollout' holds double, not int32; publish the predictions again",
        ),
        (
            "null",
            THREE.set_column(3, "label", pa.array(["a", None, "b"])),
            "PATH: row 2: label: input should be a valid value, not null; see predictions.schema.json",
        ),
        (
            "empty",
            THREE.set_column(0, "sample_id", pa.array(["a", "b", ""])),
            "PATH: row 3: sample_id: string should have at least 1 character; see predictions.schema.json",
        ),
        (
            "low",
            THREE.set_column(5, "rollout", pa.array([0, 0, -1], pa.int32())),
            "PATH: row 3: rollout: input should be greater than or equal to 0; see predictions.schema.json",
        ),
        (
            "level",
            THREE.set_column(8, "category", pa.array(["generic", "vague", None])),
            f"PATH: row 2: category: input should be one of {', '.join(WIRE_NAMES)}; see predictions.schema.json",
        ),
    ]:
        write_parquet(path, table, HEAD)
        refuse(path, message)
    write_parquet(path, THREE, None)
    with pytest.raises(UserError, match="not a file of published predictions"):
        read_predictions(path)
    write_parquet(path, THREE, HEAD)
    whole = path.read_bytes()
    for cut in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match="is not a sound Parquet file"):
            read_predictions(path)


def test_a_flipped_byte_never_escapes_as_another_error(tmp_path):
    path = tmp_path / "a.parquet"
    write_predictions(path, published([row(i) for i in range(50)]))
    whole = path.read_bytes()
    for at in range(0, len(whole), 89):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            list(read_predictions(path).rows())
        except UserError as error:
            assert "\n" not in str(error)


def test_sixty_four_bit_rollouts_of_other_writers_are_read(tmp_path):
    write_parquet(tmp_path / "a.parquet", THREE.set_column(5, "rollout", pa.array([0, 0, 0], pa.int64())), HEAD)
    assert read_predictions(tmp_path / "a.parquet").table.equals(THREE)
    write_parquet(tmp_path / "a.parquet", THREE.set_column(5, "rollout", pa.array([0, 0, 2**40], pa.int64())), HEAD)
    with pytest.raises(UserError):
        read_predictions(tmp_path / "a.parquet")


def test_large_strings_and_bad_utf8(tmp_path):
    write_parquet(
        tmp_path / "a.parquet",
        THREE.cast(pa.schema([(f.name, pa.large_string() if f.name != "rollout" else f.type) for f in THREE.schema])),
        HEAD,
    )
    assert read_predictions(tmp_path / "a.parquet").table.equals(THREE)
    write_parquet(
        tmp_path / "a.parquet",
        THREE.set_column(7, "answer", pa.array([b"a", b"\xff\xfe", b"c"]).view(pa.string())),
        HEAD,
    )
    with pytest.raises(UserError, match="is not a sound Parquet file"):
        read_predictions(tmp_path / "a.parquet")


def test_paths(tmp_path):
    refuse(
        tmp_path / "none.jsonl", "cannot read PATH: No such file or directory; give the path of published predictions"
    )
    refuse(tmp_path / "a.csv", "PATH: predictions are kept as .parquet or .jsonl; choose one of these endings")
    (tmp_path / "d.parquet").mkdir()
    refuse(tmp_path / "d.parquet", "cannot read PATH: Is a directory; give the path of published predictions")
    write_predictions(tmp_path / "a.jsonl", published([row()]))
    with pytest.raises(UserError, match="choose one of these endings"):
        convert(tmp_path / "a.jsonl", tmp_path / "b.csv")


texts = st.text(st.characters(codec=None), max_size=12)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(texts, st.one_of(st.none(), texts), st.sampled_from([None, *WIRE_NAMES])), max_size=6),
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), st.integers(-9, 9), max_size=3),
)
def test_any_text_survives_both_forms(tmp_path, answers, card):
    "Line separators, NUL, quotation marks, halves of surrogate pairs (which no file can hold; they become ?)."
    given_rows = [row(i, answer=a, text=b, category=c) for i, (a, b, c) in enumerate(answers)]
    predictions = published(given_rows, **card)
    for name in ("a.jsonl", "a.parquet"):
        write_predictions(tmp_path / name, predictions)
        again = read_predictions(tmp_path / name)
        assert again.table.equals(predictions.table) and again.card == card
    convert(tmp_path / "a.parquet", tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    assert [r["answer"] for r in again.rows()] == [a.encode("utf-8", "replace").decode() for a, _, _ in answers]


def test_predictions_of_another_data_set():
    rows = [row(i, rollout=r) for i in range(3) for r in range(2)]
    samples = [Sample(f"{i}.png", None, "ovenbird", "birds") for i in range(3)]
    check_against(published(rows), samples)
    for wrong, message in [
        (
            samples[:2],
            "the predictions: row 5: sample '2.png' is not in cub200 test (there is no such sample); these are "
            "predictions of another data set or split",
        ),
        (
            [*samples[:2], Sample("2.png", None, "pug", "birds")],
            "the predictions: row 5: sample '2.png' is not in cub200 test (its label is 'ovenbird', there 'pug'); "
            "these are predictions of another data set or split",
        ),
        (
            [*samples[:2], Sample("2.png", None, "ovenbird", "cub200")],
            "the predictions: row 5: sample '2.png' is not in cub200 test (there is no such sample); these are "
            "predictions of another data set or split",
        ),
        (
            [*samples, Sample("3.png", None, "ovenbird", "birds")],
            "the predictions: 1 of 4 samples of cub200 test have no predictions ('3.png', ...); finish the run, or "
            "name the split it was made for",
        ),
    ]:
        with pytest.raises(UserError) as error:
            check_against(published(rows), wrong, "cub200 test")
        assert str(error.value) == message
    with pytest.raises(
        UserError,
        match="^the predictions: the label 'ovenbird' is not in pets; these are predictions of another data set, or "
        "their labels are spelled otherwise$",
    ):
        check_labels(published([row(dataset="pets")]))
    check_labels(published([row(dataset="my own set"), row(1, dataset=None)]))


def test_arrays_do_not_depend_on_the_order_of_rollouts():
    rows = [row(i, rollout=r, category=WIRE_NAMES[(i + r) % 6]) for i in range(4) for r in range(3)]
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(12)]
    a, b = codes_of(published(rows)), codes_of(published(shuffled))
    assert a.codes.tolist() == [[(i + r) % 6 for r in range(3)] for i in range(4)] and a.keys == [
        ("birds", f"{i}.png") for i in range(4)
    ]
    assert [b.codes.tolist()[b.keys.index(key)] for key in a.keys] == a.codes.tolist()


def test_a_row_is_judged_if_it_has_a_category_or_a_source():
    assert (
        published([row(source=None)]).judged
        and published([row(category=None, source="undecided")]).judged
        and published([]).judged
    )
    assert codes_of(published([row(category="", source="undecided")])).codes.tolist() == [[MISSING]]
    assert not codes_of(published([row(source=None)])).format_failure.any()
    with pytest.raises(UserError, match="^the predictions: row 2: no judge has seen it; judge the predictions first$"):
        codes_of(published([row(), row(1, category=None, source=None)]))
