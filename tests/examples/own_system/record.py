"""The record of the example, which would be an entry of utils/systems.py."""

from utils.systems import System

SUPERVISED = System(
    name="supervised",
    setting="supervised",
    title="supervised segmentation of all classes",
    schema="tests.examples.own_system.config:SupervisedConfig",
    data="tests.examples.own_system.data:SupervisedData",
    segmenter="tests.examples.own_system.network:load_supervised",
    page="tests.examples.own_system.page:page",
    table="tests.examples.own_system.page:TABLE",
    stages=("train_supervised.py", "eval.py"),
)
