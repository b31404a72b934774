"""Write the tiny data set of the tests and a configuration of every training on it: `make_tiny.py FOLDER`.

tiny.yaml is of class discovery, small.yaml of a class-incremental task, contrast.yaml of MaskContrast's pre-training,
zero_shot.yaml and weak_shot.yaml of these systems.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import yaml

    from tests.conftest import make_task_shapes, make_voc, write_task, write_tiny
    from tests.test_pretrain_contrast import SMALL
    from tests.test_train_weakshot import write_weak_shot
    from tests.test_zeroshot_chain import write_zero_shot

    folder = Path(sys.argv[1])
    voc = make_voc(folder / "voc", train=16, val=8)
    contrast = {**SMALL, "data": {**SMALL["data"], "root": str(voc)}}
    (folder / "contrast.yaml").write_text(yaml.safe_dump(contrast))
    task = write_task(folder / "small.yaml", make_task_shapes(folder / "task_shapes"), voc)
    print(
        write_tiny(folder, voc),
        task,
        folder / "contrast.yaml",
        write_zero_shot(folder, voc),
        write_weak_shot(folder, voc),
    )
