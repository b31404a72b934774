"""Student and moving-average teacher of EUMS (Zhao et al., CVPR 2022, sec. 3.4)."""

import copy

import torch
from torch import nn

from models.segmentation import SegmentationNet


class TeacherStudent(nn.Module):
    """Two copies of a network.

    Decoder and classifier of each are initialised separately, so the two differ at step 0 (official code). With
    `from_scratch` false, they stay equal copies.
    """

    def __init__(self, student: SegmentationNet[nn.Conv2d], momentum: float = 0.99, from_scratch: bool = True):
        super().__init__()
        self.student, self.teacher, self.momentum = student, copy.deepcopy(student), momentum
        for network in (self.student, self.teacher) if from_scratch else ():
            reinitialize(network.decoder)
            reinitialize(network.classifier)
        self.teacher.requires_grad_(False)
        self._choose_averaged()
        self.register_load_state_dict_post_hook(lambda module, _keys: module._choose_averaged())

    def _choose_averaged(self) -> None:
        """Selects the parameters that the average has to update.

        Frozen parameters that are equal in both networks stay equal. Frozen ones may differ in a resumed run: they may
        have trained before, so that the teacher still lags behind.
        """
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        self._averaged = [student.requires_grad or not student.equal(teacher) for teacher, student in pairs]

    def compile(self, *args, **kwargs) -> None:
        self.student.compile(*args, **kwargs)
        self.teacher.compile(*args, **kwargs)

    @torch.no_grad()
    def update_teacher(self) -> None:
        """theta_k <- m theta_k + (1 - m) theta_q for all parameters; BatchNorm statistics are not averaged."""
        pairs = zip(self._averaged, self.teacher.parameters(), self.student.parameters(), strict=True)
        chosen = [(teacher, student) for averaged, teacher, student in pairs if averaged]
        torch._foreach_lerp_([t for t, _ in chosen], [s for _, s in chosen], 1 - self.momentum)


def reinitialize(module: nn.Module) -> None:
    """Kaiming-normal convolutions (fan-in, ReLU), BatchNorm weight 1 and bias 0; other biases are kept."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
