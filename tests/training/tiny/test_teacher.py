"""helios-tiny's teacher: its objective, corrupted histories, batches."""

import torch
from helios_video.helios_core import pyramid
from helios_video.helios_core.history.window import History
from helios_video.helios_core.steps import schedule
from helios_video.helios_core.training.objective import MAX_HISTORY_NOISE, flow_pair
from helios_video.helios_core.training.tiny.teacher import SCHEDULE, Batches, Tiny, stage_loss

STAGES = schedule.stages(SCHEDULE)


def test_stage_end_points_meet_the_next_stage():
    """Upsampling a stage's end point and adding block noise gives the next stage's start point in distribution."""
    clean, noise = torch.randn(1, 16, 9, 32, 32) * 0, torch.randn(1, 16, 9, 32, 32)
    for low, high in zip(STAGES, STAGES[1:]):
        _, end = flow_pair(low, clean, noise, 2)
        jumped = high.alpha * pyramid.upsample(end)
        jumped = jumped + high.beta * pyramid.block_noise(torch.randn(jumped.shape), SCHEDULE.gamma)
        start, _ = flow_pair(high, clean, noise, 2)
        assert abs(float(jumped.std() / start.std()) - 1) < 0.03


def test_signal_share_across_the_jump_is_that_of_the_start_point():
    clean = torch.ones(1, 16, 9, 32, 32)
    for low, high in zip(STAGES, STAGES[1:]):
        _, end = flow_pair(low, clean, clean * 0, 2)
        start, _ = flow_pair(high, clean, clean * 0, 2)
        torch.testing.assert_close(high.alpha * pyramid.upsample(end), start)


def test_last_end_point_is_the_clean_latent():
    clean = torch.randn(1, 16, 9, 8, 8)
    _, end = flow_pair(STAGES[-1], clean, torch.randn_like(clean), 2)
    assert torch.equal(end, clean)


def test_corruption_leaves_absent_history_at_zero_and_bounds_the_noise(clips):
    batches = Batches(clips, 0)
    frames = torch.ones(8, 16, 19, 8, 8)
    frames[:, :, :10] = 0
    out = batches.corrupt(frames)
    assert not out[:, :, :10].any()
    assert out[:, :, 10:].std() > 0.01
    assert (out[:, :, 10:].mean((1, 3, 4)) > 1 - MAX_HISTORY_NOISE - 0.1).all()


def test_batches_pair_a_chunk_with_its_own_past(clips):
    batches = Batches(clips, 3)
    batches.corrupt = lambda frames: frames
    chunk, history, _ = batches.draw(64)
    images = 0
    for i in range(64):
        clip, place = next(
            (c, k) for c in range(6) for k in range(4) if torch.equal(clips.latents[c, :, 9 * k : 9 * k + 9], chunk[i])
        )
        past = History(torch.zeros(1, 16, 19, 8, 8))
        still = clips.stills[clip, :, place]
        if torch.equal(history.window[i, :, -1], still):  # an image start: the chunk's first picture, held still
            assert not history.window[i, :, :-1].any() and torch.equal(history.anchor[i, :, 0], chunk[i, :, 0])
            images += 1
            continue
        for k in range(place):
            past = past.append(clips.latents[clip : clip + 1, :, 9 * k : 9 * k + 9])
        assert torch.equal(history.window[i], past.window[0])
        anchor = torch.zeros(16, 1, 8, 8) if past.anchor is None else past.anchor[0]
        assert torch.equal(history.anchor[i], anchor)
    assert 1 <= images <= 20


def test_loss_has_gradients_everywhere(clips):
    model = Tiny()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    sum(stage_loss(model, Batches(clips, 0), stage, 2) for stage in STAGES).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
