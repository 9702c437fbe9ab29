"""helios-tiny: its VAE, the many-step teacher, and the few-step student."""
