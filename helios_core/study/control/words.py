"""What the page of the control study explains; numbers and verdicts are made of the results, in report.py."""

from __future__ import annotations

TITLE = "Control latents and variance: the question of issue #116, trained"
CELLS = "The first seed, one chunk. Rows: trained with; columns: used with."
SHORT = (
    "Adapters that have learned little are too weak, and what makes any control stronger on the coarse stages brings "
    "them nearer to the path, whatever they were trained with."
)
WHAT = {
    "content": "means, no gain: what the model was trained on for clean latents",
    "noise": "means times the factor, 2 and 4: right for white noise",
    "match": "means, then the spread of all latents as it was",
    "match_channel": "the same, channel by channel",
    "analytic": "means over the L2 norm of the kernel: 2 and 4 for these means too",
}
QUESTION = (
    "Somebody trains Helios on a control video (robot control): its VAE latents, pushed down the pyramid, stand beside "
    "the noise. The official code multiplies what it downsamples by the factor, and with control latents the variance "
    "explodes: mosaic, checkerboard, unstable conditioning ([issue "
    "#116](https://github.com/PKU-YuanGroup/Helios/issues/116)). Here an adapter was trained with each way to set the "
    "variance, all else the same, and used with each other way too."
)
FACTORS = (
    "**Factors.** The sampler's own pyramid halves twice, and control tokens must lie on the grid of the stage's, so "
    "control latents are halved twice with them. 3 then 2 has no stage to go to: the jump between two stages doubles "
    "(nearest neighbours, and noise in 2x2 blocks), and 8 latents a side divide by neither 3 nor 6. Only a model with "
    "such stages could be asked."
)
ADVICE = """## If you train control yourself
- **Noise keeps its factor.** It is what the model was trained with, and has nothing to do with the control's.
- **Start the control's embedding at zero**, added to the tokens or as the new channels of a wider kernel: step 0 is \
then the model as it was, whatever the spread of what comes in.
- **Shrink control latents by means.** A fixed gain on them is no explosion by itself: a linear embedding learns \
its own scale, and a larger one on the coarse stages, where the path is decided, is learned sooner. Gains that are \
measured per video (`match`, `match_channel`) are learned as well, and tie a pixel's meaning to what else is in the \
picture.
- **Whatever you choose, write it down and use it at inference.** With one policy in training and another in the \
sampler the checkerboards of the finest stage grow, whichever way the two differ, and an adapter that was trained with \
a gain and is used without loses the path (tables above). If yours comes out as a mosaic, compare the two first.
- **Control too weak?** Train longer, or raise the strength; another policy at inference does the same at the price of \
checkerboards.

What was not tried: a large model, trained in full, with control latents as further channels of its own embedding, as \
the issue has it. That its training breaks by the gain alone was not seen here."""
