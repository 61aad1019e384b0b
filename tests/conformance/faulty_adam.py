"""Adam with one thing wrong, for each framework, in place of a half's `adam`."""

from __future__ import annotations

from typing import Any


def jax_adam(
    eps=1e-8, eps_inside=False, beta1=0.9, beta2=0.999, bias_correction=True, rate_scale=1.0, decay=0.0, decays=False
) -> Any:
    """A replacement of `jax_vae.optimizers.adam`; its state is Optax's."""
    import jax
    import jax.numpy as jnp
    import optax

    def make(config):
        reference = optax.scale_by_adam(beta1, beta2, eps)
        rate = config.training.learning_rate * rate_scale

        def update(gradients, state, parameters=None):
            count = state.count + 1
            mu = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state.mu, gradients)
            nu = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g**2, state.nu, gradients)

            def direction(m, v):
                if bias_correction:
                    m, v = m / (1 - beta1**count), v / (1 - beta2**count)
                if decays:
                    m = jnp.where(count > 2000, 0.1 * m, m)
                return m / (jnp.sqrt(v + eps) if eps_inside else jnp.sqrt(v) + eps)

            updates = jax.tree.map(direction, mu, nu)
            if decay:
                updates = jax.tree.map(lambda u, p: u + decay * p, updates, parameters)
            return jax.tree.map(lambda u: -rate * u, updates), state._replace(count=count, mu=mu, nu=nu)

        return optax.GradientTransformation(reference.init, update)

    return make


def torch_adam(
    eps=1e-8, eps_inside=False, beta1=0.9, beta2=0.999, bias_correction=True, rate_scale=1.0, decay=0.0, decays=False
) -> Any:
    """A replacement of `torch_vae.optimizers.adam`; its state is PyTorch's."""
    import torch

    class Faulty:
        def __init__(self, model, config):
            self.rate, self.parameters, self.state = config.training.learning_rate, list(model.parameters()), {}
            for parameter in self.parameters:
                zeros = {k: torch.zeros_like(parameter, requires_grad=False) for k in ("exp_avg", "exp_avg_sq")}
                self.state[parameter] = zeros | {"step": torch.tensor(0.0)}

        @torch.no_grad()
        def step(self, gradients):
            for parameter, gradient in zip(self.parameters, gradients):
                state = self.state[parameter]
                state["step"] = state["step"] + 1
                state["exp_avg"] = beta1 * state["exp_avg"] + (1 - beta1) * gradient
                state["exp_avg_sq"] = beta2 * state["exp_avg_sq"] + (1 - beta2) * gradient**2
                m, v, t = state["exp_avg"], state["exp_avg_sq"], float(state["step"])
                if bias_correction:
                    m, v = m / (1 - beta1**t), v / (1 - beta2**t)
                if decays and t > 2000:
                    m = 0.1 * m
                denominator = (v + eps).sqrt() if eps_inside else v.sqrt() + eps
                parameter -= self.rate * rate_scale * (m / denominator + decay * parameter)

    return Faulty
