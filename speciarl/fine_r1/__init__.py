"The other method."

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .closed import Closed as Closed
    from .closed import OpenScore as OpenScore
    from .closed import Question as Question
    from .closed import closed_prompt as closed_prompt
    from .closed import evaluate_closed as evaluate_closed
    from .closed import evaluate_open as evaluate_open
    from .closed import positions as positions
    from .closed import questions as questions
    from .closed import summary as summary
    from .closed_run import run_closed as run_closed
    from .cot import COT as COT
    from .cot import teach_words as teach_words
    from .methods import model_card as model_card
    from .methods import train as train
    from .methods import train_on_rationales as train_on_rationales
    from .methods import way_of as way_of
    from .rationales import Rationale as Rationale
    from .rationales import Teacher as Teacher
    from .rationales import ask_teacher as ask_teacher
    from .rationales import parse as parse
    from .rationales import plate_rationales as plate_rationales
    from .rationales import read_rationales as read_rationales
    from .rationales import render as render
    from .rationales import write_rationales as write_rationales
    from .tapo import TAPO as TAPO
    from .teaching import teaching_samples as teaching_samples
    from .triplets import Triplet as Triplet
    from .triplets import make_triplets as make_triplets
    from .triplets import picture_vectors as picture_vectors

# `cot` and `closed` are not among them: their modules have the same names.
__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Rationale": "speciarl.fine_r1.rationales",
        "render": "speciarl.fine_r1.rationales",
        "parse": "speciarl.fine_r1.rationales",
        "read_rationales": "speciarl.fine_r1.rationales",
        "write_rationales": "speciarl.fine_r1.rationales",
        "plate_rationales": "speciarl.fine_r1.rationales",
        "Teacher": "speciarl.fine_r1.rationales",
        "ask_teacher": "speciarl.fine_r1.rationales",
        "COT": "speciarl.fine_r1.cot",
        "teach_words": "speciarl.fine_r1.cot",
        "Triplet": "speciarl.fine_r1.triplets",
        "make_triplets": "speciarl.fine_r1.triplets",
        "picture_vectors": "speciarl.fine_r1.triplets",
        "TAPO": "speciarl.fine_r1.tapo",
        "Question": "speciarl.fine_r1.closed",
        "questions": "speciarl.fine_r1.closed",
        "Closed": "speciarl.fine_r1.closed",
        "closed_prompt": "speciarl.fine_r1.closed",
        "evaluate_closed": "speciarl.fine_r1.closed",
        "summary": "speciarl.fine_r1.closed",
        "positions": "speciarl.fine_r1.closed",
        "OpenScore": "speciarl.fine_r1.closed",
        "evaluate_open": "speciarl.fine_r1.closed",
        "run_closed": "speciarl.fine_r1.closed_run",
        "teaching_samples": "speciarl.fine_r1.teaching",
        "way_of": "speciarl.fine_r1.methods",
        "train": "speciarl.fine_r1.methods",
        "train_on_rationales": "speciarl.fine_r1.methods",
        "model_card": "speciarl.fine_r1.methods",
    },
)
