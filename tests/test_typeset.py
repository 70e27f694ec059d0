"""The paper: placeholders filled, and set to the same bytes."""

from refusal import message

from speciarl.compendium.paper import fill, typeset


def test_placeholders(tmp_path):
    values = {"a.n": 3, "a.share": 0.1234, "a.word": "above", "a.minus": -0.5}
    assert (
        fill("{{a.n}} {{a.share}} {{ a.share:.1%}} {{a.word}} {{a.minus:+.1f}}", values, tmp_path)
        == "3 0.12 12.3% above −0.5"
    )
    assert fill("![x]({{figure:plane}})", values, tmp_path, "/figures/smoke") == "![x](/figures/smoke/plane.pdf)"
    assert (
        fill("![A [@b] c]({{figure:plane}}){#p}", values, tmp_path, "/f", {"plane": "0a"})
        == "![A [@b] c `#box(text(size: 6.5pt, fill: luma(45%))[record 0a])`{=typst}](/f/plane.pdf){#p}"
    )
    assert fill("[{{a.n}}]({{a.n}}) ({{a.n}})", values, tmp_path) == "[3](3) (3)"
    assert fill("{{see:fig-plane}}", values, tmp_path) == "`@fig-plane`{=typst}"
    (tmp_path / "t.md").write_text(
        "| a | b |\n| --- | ---: |\n| x | 1 |\n\nTable: Caption.\n\nNotes.\n\n<!-- record 1 -->\n"
    )
    assert fill("{{table:t}}", values, tmp_path) == (
        "| a | b |\n| :--- | ---: |\n| x | 1 |\n\nTable: Caption. `#box(text(size: 6.5pt, fill: luma(45%))[record "
        "1])`{=typst} {#tbl-t}\n\n`#text(size: 7.5pt)[`{=typst}Notes.`]`{=typst}"
    )
    assert (
        message(fill, "{{table:none}}", values, tmp_path)
        == "line 1 of the paper asks for {{table:none}}, which no notebook has written"
    )


def test_typesetting_is_byte_stable_and_says_what_is_wrong(tmp_path):
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper/references.bib").write_text("@misc{known, title={Known}, author={Known, Ann}, year={2026}}")
    first = typeset("# A\n\nText [@known].\n", tmp_path, tmp_path / "one")
    assert first.startswith(b"%PDF") and first == typeset("# A\n\nText [@known].\n", tmp_path, tmp_path / "one")
    assert "citation unknown not found" in message(typeset, "Text [@unknown].", tmp_path, tmp_path / "one")
    assert "file not found" in message(typeset, "![x](/figures/none.pdf)", tmp_path, tmp_path / "one")
