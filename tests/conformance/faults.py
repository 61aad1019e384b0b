"""The faults, each with the tier that has to notice it, in the order of the pipeline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.conformance.extension_faults import EXTENSION_FAULTS
from tests.conformance.model_faults import (
    activation,
    at_the_mean,
    channels_first,
    clamped_logits,
    clipped,
    encoding,
    kl,
    latents,
    posterior,
    reconstruction,
    terms,
    without_bias,
    without_sigmoid,
)
from tests.conformance.option_faults import OPTION_FAULTS
from tests.conformance.planting import Fault
from tests.conformance.training_faults import (
    clipped_gradients,
    drawing,
    drop_last,
    evaluate_mean,
    in_the_epoch,
    loading,
    moments_only,
    optimizer,
    preparing,
    reshaped,
    resuming,
    stale,
    state_config,
    terms_after_the_update,
    weights_only,
    without_partial_batch,
)
from vae_common.contracts import Posterior
from vae_common.runs.checkpoints import FIRST, SECOND, STEP

FAULTS = [
    Fault("KL doubled", "T1", kl(lambda kl, f: lambda m, s: 2 * kl(m, s))),
    Fault("KL halved", "T1", kl(lambda kl, f: lambda m, s: kl(m, s) / 2), both=True),
    Fault("KL without its constant", "T1", kl(lambda kl, f: lambda m, s: kl(m, s) + 0.5)),
    Fault("KL with its sign turned", "T1", kl(lambda kl, f: lambda m, s: -kl(m, s))),
    Fault("KL averaged over latents", "T1", kl(lambda kl, f: lambda m, s: kl(m, s) / m.shape[1])),
    Fault("KL ignores the mean", "T3", kl(lambda kl, f: lambda m, s: kl(f.detach(m), s))),
    Fault("beta ignored", "T1", terms(lambda t, loss: t._replace(total=t.reconstruction + t.kl)), {"loss": "beta"}),
    Fault(
        "reconstruction averaged over pixels",
        "T1",
        reconstruction("bernoulli", lambda r, f: lambda logits, x, s: r(logits, x) / logits[0].reshape(-1).shape[0]),
    ),
    Fault(
        "reconstruction halved", "T1", reconstruction("bernoulli", lambda r, f: lambda logits, x, s: r(logits, x) / 2)
    ),
    Fault(
        "squared error halved",
        "T1",
        reconstruction("squared_error", lambda r, f: lambda logits, x, s: r(logits, x) / 2),
        {"loss": "squared"},
    ),
    Fault(
        "loss summed over the batch", "T3", state_config(lambda c: replace(c, loss=replace(c.loss, reduction="sum")))
    ),
    Fault("sigma = exp(2 head)", "T2", posterior(lambda p: Posterior(p.mean, 2 * p.log_std))),
    Fault("sigma = exp(head / 2)", "T2", posterior(lambda p: Posterior(p.mean, p.log_std / 2))),
    Fault("mean and log_std swapped", "T2", posterior(lambda p: Posterior(p.log_std, p.mean))),
    Fault("variance in place of sigma", "T2", latents(lambda p, n, f: p.mean + f.exp(2 * p.log_std) * n), both=True),
    Fault("noise subtracted", "T2", latents(lambda p, n, f: p.mean - f.exp(p.log_std) * n)),
    Fault("no noise", "T2", latents(at_the_mean)),
    Fault("no gradient through sigma", "T3", latents(lambda p, n, f: p.mean + f.detach(f.exp(p.log_std)) * n)),
    Fault("decoder without its last bias", "T2", without_bias),
    Fault("pixels flattened channels first", "T2", channels_first),
    Fault(
        "sigmoid applied twice",
        "T1",
        reconstruction("bernoulli", lambda r, f: lambda logits, x, s: r(f.sigmoid(logits), x)),
    ),
    Fault("probabilities clipped at 1e-7", "T1", reconstruction("bernoulli", clipped)),
    Fault(
        "GELU approximated",
        "T1",
        activation("gelu", lambda x, f: x / 2 * (1 + f.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))),
        {"activation": "gelu"},
    ),
    Fault(
        "softplus linear above 20",
        "T1",
        activation("softplus", lambda x, f: f.log(1 + f.exp(f.clip(x, -60, 20))) + f.clip(x - 20, 0, 1e9)),
        {"activation": "softplus"},
    ),
    Fault("log_std clamped at 8", "T2", posterior(lambda p: p._replace(log_std=p.log_std.clip(-8, 8)))),
    Fault("log_std clamped in the KL", "T1", kl(lambda kl, f: lambda m, s: kl(m, f.clip(s, -8, 8)))),
    Fault("sigma with a floor", "T2", latents(lambda p, n, f: p.mean + (f.exp(p.log_std) + 1e-6) * n)),
    Fault("logits clamped at 200", "T2", clamped_logits(200)),
    Fault("gradients clipped", "T3", clipped_gradients(100)),
    Fault("terms after the update", "T4b", terms_after_the_update),
    Fault("Adam eps 1e-7", "T4a", optimizer(eps=1e-7), both=True),
    Fault("Adam eps 0", "T4a", optimizer(eps=0.0)),
    Fault("Adam eps inside the root", "T4a", optimizer(eps_inside=True)),
    Fault("Adam beta1 0.95", "T4a", optimizer(beta1=0.95)),
    Fault("Adam beta2 0.99", "T4a", optimizer(beta2=0.99)),
    Fault("Adam without bias correction", "T4a", optimizer(bias_correction=False)),
    Fault("learning rate x 1.001", "T4a", optimizer(rate_scale=1.001)),
    Fault("learning rate that decays", "T4a", optimizer(decays=True)),
    Fault("weight decay", "T4a", optimizer(decay=1e-4)),
    Fault("stale noise", "T0", drawing(noise=stale)),
    Fault("noise off by one step", "T0", drawing(noise=lambda x, f: f.roll(x))),
    Fault("batch order off by one step", "T0", drawing(order=lambda x, f: f.roll(x))),
    Fault("binarization off by one step", "T0", drawing(thresholds=lambda x, f: f.roll(x))),
    Fault("noise off by one in the epoch's loop", "T5", in_the_epoch(noise=lambda x, f: f.roll(x))),
    Fault("one batch over and over in the epoch's loop", "T5", in_the_epoch(order=stale)),
    Fault("binarization off by one in the epoch's loop", "T5", in_the_epoch(thresholds=lambda x, f: f.roll(x))),
    Fault("/256 for /255", "T1", preparing(lambda o, x, t, d: o(x, t, d) * (255 / 256) if t is None else o(x, t, d))),
    Fault(
        "threshold counted as above", "T1", preparing(lambda o, x, t, d: o(x, t, d) if t is None else 1 - o(t, x, d))
    ),
    Fault("weight reshaped instead of transposed", "T0", loading(lambda n, a: reshaped(a) if a.ndim == 2 else a)),
    Fault("resume with the count reset", "T0", resuming(lambda n, a: 0 * a if n == STEP else a)),
    Fault("resume without the moments", "T0", resuming(lambda n, a: 0 * a if n.startswith((FIRST, SECOND)) else a)),
    Fault("resume with the second moment reshaped", "T0", resuming(moments_only(SECOND, reshaped))),
    Fault(
        "resume with weights rounded to float16",
        "T0",
        resuming(weights_only(lambda a: a.astype(np.float16).astype(a.dtype))),
    ),
    Fault("weights of another initialiser", "T0", loading(lambda n, a: 3**0.5 * a)),
    Fault("evaluation at the mean", "T2", evaluate_mean),
    Fault("evaluation without the last image", "T2", drop_last),
    Fault("inference without its partial batch", "T2", without_partial_batch),
    Fault("decoding without the sigmoid", "T2", without_sigmoid),
    Fault("encoding swaps mean and log_std", "T2", encoding(lambda p: Posterior(p.log_std, p.mean))),
    *OPTION_FAULTS,
    *EXTENSION_FAULTS,
]
