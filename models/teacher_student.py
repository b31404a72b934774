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
        # the parts that never train are equal in both and stay so: leave them out of the average
        self._averaged = [p.requires_grad for p in student.parameters()]
        self.teacher.requires_grad_(False)

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
