import pytest

from utils.config.ssul import StepTraining


@pytest.mark.parametrize(
    ("images", "epochs", "batch", "length", "every"),
    [(9568, 50, 32, 299, 149), (487, 50, 32, 15, 100), (20, 50, 32, 1, 100)],
)
def test_validation_of_the_official_code(images, epochs, batch, length, every):
    settings = StepTraining(epochs=epochs, batch_size=batch)
    made = settings.of_step(images, last_only=False)
    assert (made.iters_per_epoch, made.eval_steps) == (length, every)
    assert settings.of_step(images, last_only=True).eval_steps == epochs * length
