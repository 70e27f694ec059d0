"Pictures and their names."

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .benchmarks import DATASETS as DATASETS
    from .benchmarks import clean_label as clean_label
    from .benchmarks import dataset_info as dataset_info
    from .fetch import download as download
    from .fieldguide import World as World
    from .fieldguide import plates as plates
    from .samples import Sample as Sample
    from .samples import open_image as open_image
    from .samples import read_folder as read_folder
    from .samples import read_hub as read_hub
    from .sets import BenchmarkSet as BenchmarkSet
    from .sets import FieldGuideSet as FieldGuideSet
    from .sets import FolderSet as FolderSet
    from .sets import named_set as named_set
    from .sets import open_set as open_set
    from .sets import read_class_folders as read_class_folders
    from .sets import read_data as read_data
    from .splits import check_benchmark as check_benchmark
    from .splits import draw_subset as draw_subset
    from .splits import read_split as read_split
    from .trees import LabelTree as LabelTree
    from .trees import available_trees as available_trees
    from .trees import load_tree as load_tree
    from .trees import load_trees as load_trees
    from .trees import parse_tree as parse_tree
    from .trees import relation as relation
    from .words import is_another as is_another
    from .words import known_names as known_names
    from .words import other_things as other_things

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "LabelTree": "speciarl.data.trees",
        "available_trees": "speciarl.data.trees",
        "load_tree": "speciarl.data.trees",
        "load_trees": "speciarl.data.trees",
        "parse_tree": "speciarl.data.trees",
        "relation": "speciarl.data.trees",
        "DATASETS": "speciarl.data.benchmarks",
        "clean_label": "speciarl.data.benchmarks",
        "dataset_info": "speciarl.data.benchmarks",
        "Sample": "speciarl.data.samples",
        "open_image": "speciarl.data.samples",
        "read_class_folders": "speciarl.data.sets",
        "read_folder": "speciarl.data.samples",
        "read_hub": "speciarl.data.samples",
        "check_benchmark": "speciarl.data.splits",
        "draw_subset": "speciarl.data.splits",
        "read_split": "speciarl.data.splits",
        "World": "speciarl.data.fieldguide",
        "plates": "speciarl.data.fieldguide",
        "download": "speciarl.data.fetch",
        "BenchmarkSet": "speciarl.data.sets",
        "FieldGuideSet": "speciarl.data.sets",
        "FolderSet": "speciarl.data.sets",
        "named_set": "speciarl.data.sets",
        "open_set": "speciarl.data.sets",
        "read_data": "speciarl.data.sets",
        "is_another": "speciarl.data.words",
        "known_names": "speciarl.data.words",
        "other_things": "speciarl.data.words",
    },
)
