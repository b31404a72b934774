"""Student and moving-average teacher of EUMS (Zhao et al., CVPR 2022, sec. 3.4)."""

import copy

import torch
from torch import nn

from models.deeplab import DeepLabV3


class TeacherStudent(nn.Module):
    """Two copies of a network. Their decoders are initialised anew and independently, so they differ at step 0."""

    def __init__(self, student: DeepLabV3, momentum: float = 0.99):
        super().__init__()
        self.student, self.teacher, self.momentum = student, copy.deepcopy(student), momentum
        for network in (self.student, self.teacher):
            reinitialize_decoder(network.classifier)
        self.teacher.requires_grad_(False)
        self._choose_averaged()
        self.register_load_state_dict_post_hook(lambda module, _keys: module._choose_averaged())

    def _choose_averaged(self) -> None:
        """Leave out of the average what does not train and is equal in both: it stays so.

        What does not train here may have trained before a run was resumed; then the teacher still lags behind.
        """
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        self._averaged = [student.requires_grad or not student.equal(teacher) for teacher, student in pairs]

    def compile(self, *args, **kwargs) -> None:
        self.student.compile(*args, **kwargs)
        self.teacher.compile(*args, **kwargs)

    @torch.no_grad()
    def update_teacher(self) -> None:
        """theta_k <- m theta_k + (1 - m) theta_q over all parameters; buffers (BatchNorm statistics) stay apart."""
        pairs = zip(self._averaged, self.teacher.parameters(), self.student.parameters(), strict=True)
        chosen = [(teacher, student) for averaged, teacher, student in pairs if averaged]
        torch._foreach_lerp_([t for t, _ in chosen], [s for _, s in chosen], 1 - self.momentum)


def reinitialize_decoder(decoder: nn.Module) -> None:
    """Kaiming-normal convolutions (fan-in, ReLU), BatchNorm weight 1 and bias 0; the last bias keeps its default."""
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
